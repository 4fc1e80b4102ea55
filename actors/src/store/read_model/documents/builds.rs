//! Which builds of a projection are begun, kept and switched in: decided from what was found, for
//! every adapter alike.
//!
//! Programs of several versions work on one database while a new one is rolled out. So versions
//! are compared by their order and never only for being the same:
//!
//! - an older program leaves everything as it is. It reads what a newer one has made, and stands by;
//! - a newer program makes its documents beside those in use;
//! - they take the place of the others once they are as far **and** sound: a program that cannot
//!   apply what the one before it could never replaces it.

use super::{Build, Builds};

/// What a program makes: a version of a projection, in a number of partitions. They are ordered by
/// both, the version first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// The version of the projection.
    pub version: u32,
    /// In how many partitions it is written.
    pub partitions: u16,
}

impl Build {
    /// What it was begun as.
    #[must_use]
    pub const fn made_as(&self) -> Wanted {
        Wanted { version: self.version, partitions: self.partitions }
    }
}

/// The builds of a projection that are in use, as the database has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The one that is read.
    pub active: Option<Build>,
    /// The one that will take its place.
    pub building: Option<Build>,
}

/// What an adapter has to do, in this order and in one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// These are no longer read or written.
    pub retire: [Option<i64>; 2],
    /// Begin one: the one that is read, or one beside it.
    pub make: Option<(Role, Wanted)>,
}

/// What a build is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is read.
    Active,
    /// It will be.
    Building,
}

impl Found {
    /// A build is begun.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn put(&mut self, role: Role, build: Build) {
        match role {
            Role::Active => self.active = Some(build),
            Role::Building => self.building = Some(build),
        }
    }

    /// A build is retired.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn remove(&mut self, build: i64) {
        for one in [&mut self.active, &mut self.building] {
            one.take_if(|found| found.id == build);
        }
    }
}

/// What a program that starts has to do.
#[must_use]
pub fn decide(found: &Found, wanted: Wanted) -> Change {
    let Some(active) = &found.active else {
        return Change { make: Some((Role::Active, wanted)), ..Change::default() };
    };
    // As new as what is read, or older: nothing is to be begun. What somebody else makes is theirs.
    if wanted <= active.made_as() {
        return Change::default();
    }
    match &found.building {
        Some(building) if building.made_as() >= wanted => Change::default(),
        outdated => Change {
            retire: [outdated.as_ref().map(|build| build.id), None],
            make: Some((Role::Building, wanted)),
        },
    }
}

/// What a rebuild has to do; or the newer build that it would take the place of.
///
/// # Errors
/// The build that a newer program has made, or makes.
pub fn rebuild(found: &Found, wanted: Wanted) -> Result<Change, Build> {
    let builds = || found.active.iter().chain(&found.building);
    if let Some(newer) = builds().find(|build| build.made_as() > wanted) {
        return Err(newer.clone());
    }
    Ok(Change {
        retire: [found.building.as_ref().map(|build| build.id), None],
        make: Some((Role::Building, wanted)),
    })
}

/// What throwing all documents away has to do. It is also the way back to an older program: only a
/// build of a newer one that is not yet read stays.
#[must_use]
pub fn reset(found: &Found, wanted: Wanted) -> Change {
    let outdated = found.building.as_ref().filter(|build| build.made_as() <= wanted);
    Change {
        retire: [found.active.as_ref().map(|build| build.id), outdated.map(|build| build.id)],
        make: Some((Role::Active, wanted)),
    }
}

/// How far two builds are, and how many documents of each stand still because of parked events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// The least checkpoint of the new build's partitions.
    pub reached: u64,
    /// The greatest of the old one's.
    pub wanted: u64,
    /// Parked documents of the new build.
    pub parked: u64,
    /// And of the old one.
    pub parked_before: u64,
}

/// What came of putting a build in the place of the active one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// It is active now, or was already.
    Active,
    /// It is not as far yet.
    Behind,
    /// More of its documents stand still than of those in use.
    Unsound {
        /// So many.
        parked: u64,
        /// And so many of those in use.
        before: u64,
    },
    /// It is no longer made: another took its place, or somebody retired it.
    Gone,
}

/// Whether a build may take the place of the active one at all.
///
/// # Errors
/// It is that one, or is not made any more.
pub fn is_candidate(found: &Found, build: i64) -> Result<(), Activation> {
    match found {
        Found { active: Some(active), .. } if active.id == build => Err(Activation::Active),
        Found { active: Some(_), building: Some(building) } if building.id == build => Ok(()),
        _ => Err(Activation::Gone),
    }
}

/// Whether a candidate may be switched in.
#[must_use]
pub const fn may_switch(compared: Compared) -> Activation {
    let Compared { reached, wanted, parked, parked_before } = compared;
    if reached < wanted {
        return Activation::Behind;
    }
    if parked > parked_before {
        return Activation::Unsound { parked, before: parked_before };
    }
    Activation::Active
}

impl Builds {
    /// The build of a newer program, if that is the one that is read.
    #[must_use]
    pub fn newer_than(&self, wanted: Wanted) -> Option<&Build> {
        (self.active.made_as() > wanted).then_some(&self.active)
    }

    /// Whether a program may write the build that is read.
    #[must_use]
    pub fn may_write_active(&self, wanted: Wanted) -> bool {
        self.active.made_as() == wanted
    }

    /// The build that a program makes, if it is its own.
    #[must_use]
    pub fn building_of(&self, wanted: Wanted) -> Option<&Build> {
        self.building.as_ref().filter(|build| build.made_as() == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wanted() -> impl Strategy<Value = Wanted> {
        (1..4_u32, 1..4_u16).prop_map(|(version, partitions)| Wanted { version, partitions })
    }

    fn done(found: &mut Found, change: Change, next: &mut i64) {
        for id in change.retire.into_iter().flatten() {
            for one in [&mut found.active, &mut found.building] {
                if one.as_ref().is_some_and(|build| build.id == id) {
                    *one = None;
                }
            }
        }
        if let Some((role, Wanted { version, partitions })) = change.make {
            *next += 1;
            let build = Some(Build { id: *next, version, partitions });
            match role {
                Role::Active => found.active = build,
                Role::Building => found.building = build,
            }
        }
    }

    proptest! {
        /// However programs of several versions start and finish on one database: what is read
        /// never becomes older, nothing that is newer is given up, and starting twice changes
        /// nothing the second time.
        #[test]
        fn versions_only_go_up(starts in prop::collection::vec((wanted(), any::<bool>()), 1..24)) {
            let (mut found, mut next) = (Found::default(), 0);
            for (wanted, finishes) in starts {
                let before = found.clone();
                done(&mut found, decide(&before, wanted), &mut next);
                prop_assert_eq!(decide(&found, wanted), Change::default());
                let newest = |found: &Found| {
                    found.active.iter().chain(&found.building).map(Build::made_as).max()
                };
                prop_assert!(newest(&found) >= newest(&before));
                prop_assert!(newest(&found) >= Some(wanted));
                let active = |found: &Found| found.active.as_ref().map(Build::made_as);
                prop_assert!(before.active.is_none() || active(&found) == active(&before));
                if finishes && let Some(build) = found.building.take() {
                    prop_assert!(Some(build.made_as()) > active(&found));
                    found.active = Some(build);
                }
            }
        }

        /// A rebuild never takes the place of something newer, and a reset never gives it up.
        #[test]
        fn what_is_newer_is_kept(
            active in wanted(), building in prop::option::of(wanted()), ours in wanted(),
        ) {
            let build = |id, Wanted { version, partitions }| Build { id, version, partitions };
            let found = Found {
                active: Some(build(1, active)),
                building: building.map(|wanted| build(2, wanted)),
            };
            let newer = active > ours || building.is_some_and(|building| building > ours);
            prop_assert_eq!(rebuild(&found, ours).is_err(), newer);
            let retired = reset(&found, ours).retire;
            let kept = building.is_some_and(|building| building > ours);
            prop_assert_eq!(retired[0], Some(1));
            prop_assert_eq!(retired[1].is_some(), building.is_some() && !kept);
        }
    }

    #[test]
    fn a_build_is_switched_in_when_it_is_as_far_and_as_sound() {
        let compared = Compared { reached: 9, wanted: 9, parked: 2, parked_before: 2 };
        assert_eq!(may_switch(compared), Activation::Active);
        assert_eq!(may_switch(Compared { reached: 8, ..compared }), Activation::Behind);
        let unsound = Activation::Unsound { parked: 3, before: 2 };
        assert_eq!(may_switch(Compared { parked: 3, ..compared }), unsound);
    }
}
