//! Times as the format stores them and as people write them.

use std::ops::RangeInclusive;

use chrono::{
    DateTime, Datelike, FixedOffset, NaiveDate, NaiveTime, TimeDelta, TimeZone, Timelike, Utc,
};

/// How versioned-hdf5 writes a version's timestamp, and what is read of others: any number of decimals.
const STORED_FORMAT: &str = "%Y-%m-%d %H:%M:%S%.6f%z";
/// The years of Python's `datetime`.
const YEARS: RangeInclusive<i32> = 1..=9999;
/// From here on `chrono` counts the nanoseconds of a leap second.
const LEAP_SECOND_NS: u32 = 1_000_000_000;
const READ_FORMAT: &str = "%Y-%m-%d %H:%M:%S%.f%z";

/// A timestamp as the format stores it: `2020-06-29 23:58:21.116470+0000`. `None` for anything else, such as a year or a leap second, which Python
/// does not have, of which [`shown`] would make a name that [`parse_iso8601`] does not read.
#[must_use]
pub fn parse_stored(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_str(text.trim_end_matches('\0'), READ_FORMAT)
        .ok()
        .map(|time| time.with_timezone(&Utc))
        .filter(|time| YEARS.contains(&time.year()) && time.nanosecond() < LEAP_SECOND_NS)
}

/// A time in the form in which the format stores it.
#[must_use]
pub fn stored(time: DateTime<Utc>) -> String {
    time.format(STORED_FORMAT).to_string()
}

/// A time as `ls at` shows it: `2020-06-29T23:58:21.116470Z`.
#[must_use]
pub fn shown(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// A time as a user writes it (ISO 8601): `2020`, `2020-06`, `2020-06-29`, `2020-06-29T23`, `2020-06-29T23:58`,
/// `2020-06-29T23:58:21`, with a fraction of up to nine digits, with a blank or `t` in place of `T`, and behind a time of
/// day an offset (`Z`, `+02:00`, `+0200`, `+02`). Without an offset it is UTC; without its finer parts it is the first
/// instant of that year, month, day, hour, minute or second. `None` for anything else.
#[must_use]
pub fn parse_iso8601(text: &str) -> Option<DateTime<Utc>> {
    let (date, rest) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let date = parse_date(date)?;
    let (time, offset) = match rest {
        None => (NaiveTime::MIN, FixedOffset::east_opt(0)?),
        Some(rest) => {
            let (time, offset) = split_offset(rest)?;
            (parse_time_of_day(time)?, offset)
        }
    };
    offset
        .from_local_datetime(&date.and_time(time))
        .single()
        .map(|time| time.with_timezone(&Utc))
}

fn parse_date(text: &str) -> Option<NaiveDate> {
    let mut parts = text.split('-');
    let year = digits(parts.next()?, 4)?;
    let month = parts.next().map_or(Some(1), |part| digits(part, 2))?;
    let day = parts.next().map_or(Some(1), |part| digits(part, 2))?;
    if parts.next().is_some() {
        return None;
    }
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)
}

fn parse_time_of_day(text: &str) -> Option<NaiveTime> {
    let mut parts = text.split(':');
    let hour = digits(parts.next()?, 2)?;
    let minute = parts.next().map_or(Some(0), |part| digits(part, 2))?;
    let (second, nanosecond) = parts.next().map_or(Some((0, 0)), parse_seconds)?;
    if parts.next().is_some() {
        return None;
    }
    NaiveTime::from_hms_nano_opt(hour, minute, second, nanosecond)
}

fn parse_seconds(text: &str) -> Option<(u32, u32)> {
    let Some((whole, fraction)) = text.split_once(['.', ',']) else {
        return Some((digits(text, 2)?, 0));
    };
    if fraction.len() > 9 {
        return None;
    }
    let scale = 10u32.pow(u32::try_from(9 - fraction.len()).ok()?);
    Some((digits(whole, 2)?, digits(fraction, fraction.len())? * scale))
}

fn split_offset(text: &str) -> Option<(&str, FixedOffset)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time, FixedOffset::east_opt(0)?));
    }
    let Some(at) = text.find(['+', '-']) else {
        return Some((text, FixedOffset::east_opt(0)?));
    };
    let (time, offset) = text.split_at(at);
    let (sign, value) = offset.split_at(1);
    let (hours, minutes) = match value.len() {
        2 => (digits(value, 2)?, 0),
        4 if value.is_ascii() => (digits(&value[..2], 2)?, digits(&value[2..], 2)?),
        5 => {
            let (hours, minutes) = value.split_once(':')?;
            (digits(hours, 2)?, digits(minutes, 2)?)
        }
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = TimeDelta::minutes(i64::from(hours * 60 + minutes)).num_seconds();
    let seconds = i32::try_from(seconds).ok()?;
    Some((
        time,
        FixedOffset::east_opt(if sign == "-" { -seconds } else { seconds })?,
    ))
}

/// Exactly `count` decimal digits.
fn digits(text: &str, count: usize) -> Option<u32> {
    if count == 0 || text.len() != count || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn stored_timestamps() {
        assert_eq!(
            parse_stored("2020-06-29 23:58:21.116470+0000"),
            Some(utc("2020-06-29T23:58:21.116470Z"))
        );
        assert_eq!(
            parse_stored("2020-06-29 23:58:21.116470+0200"),
            Some(utc("2020-06-29T21:58:21.116470Z"))
        );
        for text in [
            "yesterday",
            "+52020-06-29 03:58:21.116470+0000",
            "0000-01-01 00:00:00.000000+0000",
            "2016-12-31 23:59:60.500000+0000",
        ] {
            assert_eq!(parse_stored(text), None, "{text}");
        }
    }

    #[test]
    fn every_form_that_people_write() {
        for (text, instant) in [
            ("2020", "2020-01-01T00:00:00Z"),
            ("2020-06", "2020-06-01T00:00:00Z"),
            ("2020-06-29", "2020-06-29T00:00:00Z"),
            ("2020-06-29T23", "2020-06-29T23:00:00Z"),
            ("2020-06-29T23:58", "2020-06-29T23:58:00Z"),
            ("2020-06-29 23:58", "2020-06-29T23:58:00Z"),
            ("2020-06-29T23:58:21", "2020-06-29T23:58:21Z"),
            ("2020-06-29T23:58:21.116470Z", "2020-06-29T23:58:21.116470Z"),
            ("2020-06-29T23:58:21.1", "2020-06-29T23:58:21.1Z"),
            ("2020-06-29T23:58+02:00", "2020-06-29T21:58:00Z"),
            ("2020-06-29T23:58:21-0530", "2020-06-30T05:28:21Z"),
            ("2020-06-29T23+02", "2020-06-29T21:00:00Z"),
        ] {
            assert_eq!(parse_iso8601(text), Some(utc(instant)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time() {
        for text in [
            "",
            "x",
            "20",
            "2020-",
            "2020-6",
            "2020-13",
            "2020-02-30",
            "2020-06-29T",
            "2020-06-29T24:00",
            "2020-06-29T23:60",
            "2020-06-29T23:58:61",
            "2020-06-29T23:58+2",
            "2020-06-29T23:58+24:00",
            "2020-06-29T23:58:21.",
            "+2020",
            "2020-06-29-01",
            "2020-06-29T23:58:21.1234567890",
            "2020-06-29T23:58\u{e9}",
        ] {
            assert_eq!(parse_iso8601(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_understood() {
        let time = utc("1999-12-31T23:59:59.000001Z");
        assert_eq!(shown(time), "1999-12-31T23:59:59.000001Z");
        assert_eq!(parse_iso8601(&shown(time)), Some(time));
    }
}
