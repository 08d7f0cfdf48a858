//! `strftime` on UTC, as far as chat templates use it.

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
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Format `now` (seconds since 1970, UTC) by Python's directives; an unknown one is an error by name.
pub(crate) fn strftime(format: &str, now: i64) -> Result<String, String> {
    let (days, seconds) = (now.div_euclid(86_400), now.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute) = (seconds / 3600, seconds / 60 % 60);
    let month_name = MONTHS[month - 1];
    let day_name = DAYS[(days + 4).rem_euclid(7) as usize];
    let half = if hour < 12 { "AM" } else { "PM" };
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        out += &match letters.next() {
            Some('Y') => format!("{year}"),
            Some('y') => format!("{:02}", year.rem_euclid(100)),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('e') => format!("{day:2}"),
            // glibc's "no padding".
            Some('-') => match letters.next() {
                Some('d') => format!("{day}"),
                Some('m') => format!("{month}"),
                other => return Err(unknown(other)),
            },
            Some('B') => month_name.to_owned(),
            Some('b' | 'h') => month_name[..3].to_owned(),
            Some('A') => day_name.to_owned(),
            Some('a') => day_name[..3].to_owned(),
            Some('H') => format!("{hour:02}"),
            Some('I') => format!("{:02}", (hour + 11) % 12 + 1),
            Some('M') => format!("{minute:02}"),
            Some('S') => format!("{:02}", seconds % 60),
            Some('p') => half.to_owned(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{:02}", seconds % 60),
            Some('Z') => "UTC".to_owned(),
            Some('%') => "%".to_owned(),
            other => return Err(unknown(other)),
        };
    }
    Ok(out)
}

fn unknown(directive: Option<char>) -> String {
    let name = directive.map_or("% at the end".to_owned(), |c| format!("%{c}"));
    format!("strftime_now knows %Y %y %m %d %e %B %b %A %a %H %I %M %S %p %F %T %Z %%, not {name}")
}

/// Year, month (1 to 12) and day of a day number since 1970-01-01, in the Gregorian calendar.
/// Years are counted from March, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, usize, i64) {
    const ERA: i64 = 146_097; // days in 400 years
    let from_year_zero = days + 719_468; // 0000-03-01
    let era = from_year_zero.div_euclid(ERA);
    let of_era = from_year_zero.rem_euclid(ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as usize, day)
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn known_moments() {
        let show = |now| strftime("%Y-%m-%d %H:%M:%S %a %B %I%p", now).expect("known directives");
        assert_eq!(show(0), "1970-01-01 00:00:00 Thu January 12AM");
        assert_eq!(show(951_827_696), "2000-02-29 12:34:56 Tue February 12PM");
        assert_eq!(show(1_732_492_845), "2024-11-25 00:00:45 Mon November 12AM");
        assert_eq!(show(-1), "1969-12-31 23:59:59 Wed December 11PM");
    }

    #[test]
    fn an_unknown_directive_is_named() {
        assert!(strftime("%Q", 0).expect_err("no such directive").contains("not %Q"));
    }
}
