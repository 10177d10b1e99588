//! `strftime_now`: the date in a prompt.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Seconds since 1970 of the system's clock.
pub(super) fn now() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds)
        }
    }
}

/// Year, month from 1 and day from 1 of a day counted from 1970-01-01, in the Gregorian calendar
/// (Howard Hinnant's algorithm: years begin in March, so that the leap day is the last).
fn civil(days: i64) -> (i64, usize, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as usize, day)
}

/// `format` as C's `strftime` fills it in the C locale, for a time without a zone (`%z` and `%Z`
/// are empty, as for Python's `datetime.now()`). What is no known directive stays.
pub(super) fn strftime(format: &str, seconds: i64) -> String {
    // Within some 30,000 years, so that nothing below overflows.
    let seconds = seconds.clamp(-1 << 40, 1 << 40);
    let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) =
        (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let hour12 = (hour + 11) % 12 + 1;
    let weekday = (days + 4).rem_euclid(7) as usize;
    let (day_name, month_name) = (DAYS[weekday], MONTHS[month - 1]);
    let half = if hour < 12 { "AM" } else { "PM" };

    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        // glibc's flag for numbers without padding.
        let unpadded = chars.next_if_eq(&'-').is_some();
        let Some(directive) = chars.next() else {
            out.push('%');
            break;
        };
        let number = |n: i64, width: usize| {
            if unpadded { n.to_string() } else { format!("{n:0width$}") }
        };
        let text = match directive {
            'Y' => year.to_string(),
            'y' => number(year.rem_euclid(100), 2),
            'm' => number(month as i64, 2),
            'd' => number(day, 2),
            'e' if unpadded => day.to_string(),
            'e' => format!("{day:2}"),
            'B' => month_name.to_string(),
            'b' | 'h' => month_name[..3].to_string(),
            'A' => day_name.to_string(),
            'a' => day_name[..3].to_string(),
            'u' => (if weekday == 0 { 7 } else { weekday }).to_string(),
            'w' => weekday.to_string(),
            'j' => number(days - days_before(year) + 1, 3),
            'H' => number(hour, 2),
            'I' => number(hour12, 2),
            'M' => number(minute, 2),
            'S' => number(second, 2),
            'f' => "000000".to_string(),
            'p' => half.to_string(),
            'F' => strftime("%Y-%m-%d", seconds),
            'T' | 'X' => strftime("%H:%M:%S", seconds),
            'R' => strftime("%H:%M", seconds),
            'D' | 'x' => strftime("%m/%d/%y", seconds),
            'c' => strftime("%a %b %e %H:%M:%S %Y", seconds),
            's' => seconds.to_string(),
            'z' | 'Z' => String::new(),
            'n' => "\n".to_string(),
            't' => "\t".to_string(),
            '%' => "%".to_string(),
            other => format!("%{}{other}", if unpadded { "-" } else { "" }),
        };
        out.push_str(&text);
    }
    out
}

/// The days from 1970-01-01 to the beginning of a year.
fn days_before(year: i64) -> i64 {
    let y = year - 1;
    365 * (year - 1970) + (y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400)) - 477
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 Thursday 001 00:00:00"),
            (951_782_400, "2000-02-29 Tuesday 060 00:00:00"),
            (1_709_251_199, "2024-02-29 Thursday 060 23:59:59"),
            (1_767_225_599, "2025-12-31 Wednesday 365 23:59:59"),
            (4_107_542_400, "2100-03-01 Monday 060 00:00:00"),
            (-1, "1969-12-31 Wednesday 365 23:59:59"),
        ];
        for (seconds, want) in cases {
            assert_eq!(strftime("%Y-%m-%d %A %j %H:%M:%S", seconds), want);
        }
    }

    #[test]
    fn formats_are_those_of_strftime() {
        let at = 1_722_470_400 - 3 * 86_400 + 13 * 3600 + 5 * 60;
        let cases = [
            ("%d %b %Y", "29 Jul 2024"),
            ("%B %d, %Y", "July 29, 2024"),
            ("%a %-d/%-m/%y %I:%M %p", "Mon 29/7/24 01:05 PM"),
            ("%F %T %D %e", "2024-07-29 13:05:00 07/29/24 29"),
            ("100%% %Q %", "100% %Q %"),
        ];
        for (format, want) in cases {
            assert_eq!(strftime(format, at), want);
        }
        for extreme in [i64::MIN, i64::MAX] {
            assert!(!strftime("%c %j %s", extreme).is_empty());
        }
    }
}
