//! When an event happened: RFC 3339, kept as it was sent.

use std::borrow::Cow;

use jiff::Timestamp;

/// A point in time as the producer wrote it, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Time<'a> {
    text: Cow<'a, str>,
    timestamp: Timestamp,
}

impl<'a> Time<'a> {
    /// The text that was sent, digit for digit.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The instant; digits below a nanosecond are cut, a leap second is the second before it.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// Reads RFC 3339; the error says what is wrong, to be read after the attribute's name.
    pub(super) fn parse(text: Cow<'a, str>) -> Result<Self, String> {
        // jiff alone reads far more: dates without seconds, time zone names, a comma for a point.
        let (fraction, offset) =
            rfc3339(text.as_bytes()).ok_or("is not a date and time as in RFC 3339")?;
        // It reads nine digits of a second and no more; RFC 3339 sets no end to them.
        let nanoseconds = &text[..19 + fraction.min(10)];
        let instant = format!("{nanoseconds}{}", &text[offset..]);
        match instant.parse() {
            Ok(timestamp) => Ok(Self { text, timestamp }),
            Err(error) => Err(format!("is not a time that exists: {error}")),
        }
    }
}

/// Length of the fraction with its point, and where the offset begins, if the text has the shape
/// of RFC 3339 section 5.6.
fn rfc3339(text: &[u8]) -> Option<(usize, usize)> {
    let (start, rest) = text.split_at_checked(19)?;
    let shape = start.iter().zip(b"0000-00-00T00:00:00").all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't'),
        _ => byte == shape,
    });
    let fraction = match rest.strip_prefix(b".") {
        Some(digits) => match digits.iter().take_while(|b| b.is_ascii_digit()).count() {
            0 => return None,
            count => 1 + count,
        },
        None => 0,
    };
    let offset = match &rest[fraction..] {
        b"Z" | b"z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            let two = |tens: u8, ones: u8| {
                let digits = tens.is_ascii_digit() && ones.is_ascii_digit();
                digits.then(|| 10 * (tens - b'0') + (ones - b'0'))
            };
            two(*h1, *h2)? < 24 && two(*m1, *m2)? < 60
        }
        _ => false,
    };
    (shape && offset).then_some((fraction, 19 + fraction))
}
