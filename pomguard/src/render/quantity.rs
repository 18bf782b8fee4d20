//! Numbers, amounts and times in the form for people.

use std::time::Duration;

use jiff::Timestamp;

/// Returns `18446744` as `18,446,744`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns bytes in decimal units, which network equipment uses: `999 B`, `11.81 GB`.
#[must_use]
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if number < 1_000 {
        return format!("{number} B");
    }
    let (mut unit, mut scale) = (0, 1_000_u64);
    // Hundredths are rounded up from 999.995 on, so the next unit begins there.
    while unit + 1 < UNITS.len() && u128::from(number) * 1_000 >= u128::from(scale) * 999_995 {
        unit += 1;
        scale *= 1_000;
    }
    let hundredths = (u128::from(number) * 100 + u128::from(scale) / 2) / u128::from(scale);
    format!("{}.{:02} {}", hundredths / 100, hundredths % 100, UNITS[unit])
}

/// Returns the rate per second of `grown` in `elapsed`, rounded; a rate above zero is never shown as zero.
#[must_use]
pub fn per_second(grown: u64, elapsed: Duration) -> u64 {
    let nanoseconds = elapsed.as_nanos().max(1);
    let rate = (u128::from(grown) * 1_000_000_000 + nanoseconds / 2) / nanoseconds;
    u64::try_from(rate).unwrap_or(u64::MAX).max(u64::from(grown > 0))
}

/// Returns a share: `0.5 %`, `<0.1 %`.
#[must_use]
pub fn share(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        return "0 %".to_owned();
    }
    let tenths = (u128::from(part) * 1_000 + u128::from(whole) / 2) / u128::from(whole);
    if tenths == 0 { "<0.1 %".to_owned() } else { format!("{}.{} %", tenths / 10, tenths % 10) }
}

/// Returns a duration in at most two units: `42 s`, `1 min 30 s`, `15 min`, `1 h 5 min`, `10 d`. From ten minutes on
/// no seconds are written.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let two = |whole: u64, unit: &str, rest: u64, small: &str| {
        if rest == 0 { format!("{whole} {unit}") } else { format!("{whole} {unit} {rest} {small}") }
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..600 => two(seconds / 60, "min", seconds % 60, "s"),
        600..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// Returns an age in one unit, for a column of a table: `42 s`, `15 min`, `23 h`, `10 d`.
#[must_use]
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Returns seconds since 1970 as `2026-11-23 00:00 UTC`.
#[must_use]
pub fn timestamp(seconds: u64) -> String {
    // The calendar ends with the year 9999.
    let moment = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    moment.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// Returns a number of packets: `1 packet`, `1,000 packets`.
#[must_use]
pub fn packets(number: u64) -> String {
    format!("{} {}", grouped(number), if number == 1 { "packet" } else { "packets" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (18_446_744, "18,446,744"), (100_000, "100,000")]
        {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn bytes_change_unit_where_rounding_would_reach_it() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (999_994, "999.99 kB"),
            (999_995, "1.00 MB"),
            (11_805_916_160, "11.81 GB"),
            (u64::MAX, "18.45 EB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn a_rate_is_rounded_but_something_is_never_nothing() {
        assert_eq!(per_second(100, Duration::from_secs(2)), 50);
        assert_eq!(per_second(1, Duration::from_secs(10)), 1);
        assert_eq!(per_second(0, Duration::from_secs(10)), 0);
        assert_eq!(per_second(7, Duration::ZERO), 7_000_000_000);
    }

    #[test]
    fn shares_and_spans_are_short() {
        assert_eq!(share(0, 0), "0 %");
        assert_eq!(share(1, 262_144), "<0.1 %");
        assert_eq!(share(1_312, 262_144), "0.5 %");
        assert_eq!(share(7, 7), "100.0 %");
        for (seconds, text) in [
            (0, "0 s"),
            (60, "1 min"),
            (90, "1 min 30 s"),
            (599, "9 min 59 s"),
            (901, "15 min"),
            (3_599, "59 min"),
            (3_600, "1 h"),
            (3_900, "1 h 5 min"),
            (864_000, "10 d"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        for (seconds, text) in [(59, "59 s"), (119, "1 min"), (86_399, "23 h"), (90_000, "1 d")] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn moments_are_dates_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (1_795_392_000, "2026-11-23 00:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
            (u64::MAX, "9999-12-30 22:00 UTC"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }
}
