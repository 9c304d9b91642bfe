//! Times as the documented API writes them.

use s0_tree::Time;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

/// RFC 3339 in UTC, with the fraction of a second that there is.
#[must_use]
pub fn rfc3339(time: Time) -> String {
    moment(time).format(&Rfc3339).unwrap_or_default()
}

/// The fixed form of snapshots: `YYYY-MM-DDTHH:MM:SSZ`, in UTC.
#[must_use]
pub fn fixed(time: Time) -> String {
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    moment(time).format(&form).unwrap_or_default()
}

/// `YYYYMMDD-HHMMSS`, in UTC, for names of snapshots.
#[must_use]
pub fn compact(time: Time) -> String {
    let form = format_description!("[year][month][day]-[hour][minute][second]");
    moment(time).format(&form).unwrap_or_default()
}

/// Reads what [`rfc3339`] or [`fixed`] wrote.
#[must_use]
pub fn parse(text: &str) -> Option<Time> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(moment.unix_timestamp_nanos()).ok().map(Time)
}

fn moment(time: Time) -> OffsetDateTime {
    // Every 64-bit count of nanoseconds lies between the years 1677 and 2262.
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.0))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .to_offset(UtcOffset::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_and_read_back() {
        let time = Time(1_777_370_000_123_456_789);
        assert_eq!(rfc3339(time), "2026-04-28T09:53:20.123456789Z");
        assert_eq!(fixed(time), "2026-04-28T09:53:20Z");
        assert_eq!(compact(time), "20260428-095320");
        assert_eq!(parse(&rfc3339(time)), Some(time));
        assert_eq!(parse("yesterday"), None);
        for edge in [i64::MIN, i64::MAX] {
            assert!(!rfc3339(Time(edge)).is_empty());
        }
    }
}
