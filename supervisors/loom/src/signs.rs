//! The gate, and a life that looks at it between any two messages.

use std::sync::Arc;
use std::task::Waker;

use loom::thread::{self, JoinHandle};

use crate::gate::{Gate, Sign};
use crate::mailbox::{Mailbox, Receiver, WhenFull};
use crate::model::{Bell, Flag, Life, Message, accepted, explore, mailbox};
use crate::sync::{Mutex, lock};

/// A slot, as far as its life 1 and those who ask something of it know it.
struct Slot {
    gate: Gate,
    mailbox: Arc<Mailbox<Message>>,
    /// What the life is asked beside its mailbox.
    calls: Mutex<Vec<u32>>,
    bell: Arc<Bell>,
    done: Flag,
}

impl Slot {
    fn new() -> Arc<Self> {
        let gate = Gate::new();
        assert_eq!(gate.next_life(), 1);
        let (mailbox, bell) = (mailbox(4, WhenFull::Refuse), Arc::default());
        Arc::new(Self { gate, mailbox, calls: Mutex::new(vec![]), bell, done: Flag::default() })
    }

    /// As the kernel does it: first the gate, then the wake-up.
    fn wake(&self) {
        Waker::from(Arc::clone(&self.bell)).wake();
    }

    fn call(&self, call: u32) {
        lock(&self.calls).push(call);
        self.gate.call();
        self.wake();
    }

    fn push(&self, message: Message) {
        assert!(accepted(self.mailbox.push(message), message));
    }

    /// Another thread.
    fn beside(self: &Arc<Self>, run: impl FnOnce(&Self) + 'static) -> JoinHandle<()> {
        let slot = Arc::clone(self);
        thread::spawn(move || run(&slot))
    }

    /// Life 1, until it is told to end or has nothing left to wait for. Returns the last sign, what
    /// it handled and what it answered.
    fn live(&self, until: impl Fn(&[Message], &[u32]) -> bool) -> (Sign, Vec<Message>, Vec<u32>) {
        let bell = Arc::clone(&self.bell);
        let mut life = Life::with_bell(&self.mailbox, Receiver::default(), bell);
        let (mut handled, mut answered) = (vec![], vec![]);
        while !until(&handled, &answered) {
            let told = self.done.is_set();
            let sign = self.gate.sign(1);
            match sign {
                Sign::Go => {}
                Sign::Stop | Sign::Kill => return (sign, handled, answered),
                Sign::Call => {
                    self.gate.take_call();
                    answered.append(&mut lock(&self.calls));
                    continue;
                }
                Sign::Hold => {
                    life.sleep();
                    continue;
                }
            }
            assert!(!told, "a life that was told to end takes no message");
            match life.poll_next() {
                Some(message) => handled.push(message),
                None => life.sleep(),
            }
        }
        (self.gate.sign(1), handled, answered)
    }
}

/// Would find a life that sleeps through its kill, or takes a message when the kill is there.
#[test]
fn a_kill_ends_a_life_that_sleeps_or_works() {
    explore(3, || {
        let slot = Slot::new();
        let killer = slot.beside(|slot| {
            assert!(slot.gate.kill(1));
            slot.done.set();
            slot.wake();
        });
        let sender = slot.beside(|slot| slot.push(10));
        let (sign, handled, _) = slot.live(|_, _| false);
        assert_eq!(sign, Sign::Kill);
        assert!(slot.gate.is_killed(1) && handled.len() <= 1);
        killer.join().unwrap();
        sender.join().unwrap();
    });
}

/// Would find a stop that a hold at the same moment overwrites, and a life that sleeps through it
/// because it is held.
#[test]
fn a_stop_reaches_a_life_that_is_held() {
    explore(3, || {
        let slot = Slot::new();
        let holder = slot.beside(|slot| slot.gate.hold(true));
        let stopper = slot.beside(|slot| {
            assert!(slot.gate.stop(1));
            slot.done.set();
            slot.wake();
        });
        slot.push(10);
        let (sign, handled, _) = slot.live(|_, _| false);
        assert!(sign == Sign::Stop && handled.len() <= 1);
        holder.join().unwrap();
        stopper.join().unwrap();
        assert!(slot.gate.is_held(), "the stop took the hold away");
    });
}

/// Would find a kill that a stop at the same moment overwrites or outranks.
#[test]
fn a_kill_outranks_a_stop() {
    explore(3, || {
        let slot = Slot::new();
        let killer = slot.beside(|slot| {
            assert!(slot.gate.kill(1));
            slot.wake();
        });
        let stopper = slot.beside(|slot| {
            assert!(slot.gate.stop(1));
            slot.wake();
        });
        let (sign, ..) = slot.live(|_, _| false);
        assert!(matches!(sign, Sign::Stop | Sign::Kill));
        killer.join().unwrap();
        stopper.join().unwrap();
        assert_eq!(slot.gate.sign(1), Sign::Kill);
    });
}

/// Would find a call that is never answered: its sign is wiped out while the life takes the calls
/// before it, or the life sleeps through it, or does not answer because it is held.
#[test]
fn each_call_is_answered_once() {
    explore(3, || {
        let slot = Slot::new();
        slot.gate.hold(true);
        let callers = [1, 2].map(|call| slot.beside(move |slot| slot.call(call)));
        let (_, _, mut answered) = slot.live(|_, answered| answered.len() == 2);
        answered.sort_unstable();
        assert_eq!(answered, [1, 2]);
        for caller in callers {
            caller.join().unwrap();
        }
    });
}

/// Would find a life that stays asleep when its messages are let through again, one that never
/// hears of a message that came while it was held, and a hold that eats a call.
#[test]
fn a_held_life_goes_on_when_it_is_let() {
    explore(3, || {
        let slot = Slot::new();
        let holder = slot.beside(|slot| {
            slot.gate.hold(true);
            slot.gate.hold(false);
            slot.wake();
        });
        let sender = slot.beside(|slot| {
            slot.push(10);
            slot.call(1);
        });
        let (_, handled, answered) =
            slot.live(|handled, answered| handled.len() == 1 && answered.len() == 1);
        assert_eq!((&handled[..], &answered[..]), (&[10][..], &[1][..]));
        holder.join().unwrap();
        sender.join().unwrap();
        assert_eq!(slot.gate.sign(1), Sign::Go);
    });
}

/// Would find a life that takes a message although it was held before it looked.
#[test]
fn a_held_life_takes_nothing() {
    explore(3, || {
        let slot = Slot::new();
        slot.gate.hold(true);
        slot.push(10);
        let let_go = Arc::new(Flag::default());
        let holder = {
            let let_go = Arc::clone(&let_go);
            slot.beside(move |slot| {
                let_go.set();
                slot.gate.hold(false);
                slot.wake();
            })
        };
        let (_, handled, _) = slot.live(|handled, _| !handled.is_empty());
        assert!(let_go.is_set(), "handled while it was held");
        assert_eq!(handled, [10]);
        holder.join().unwrap();
    });
}
