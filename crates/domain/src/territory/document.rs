//! The table of rules as people read it: `docs/rules.md` is made from it, and a test keeps it true.

use jiff::civil::Weekday;

use super::{Day, Hours, Table, Territory};

impl Table {
    /// A table in Markdown: the territories that have rules of their own, and what holds elsewhere.
    pub fn markdown(&self) -> String {
        let mut table = String::from(
            "| territory | hours of marketing | closed on | a phone whose zone is not known | source |\n|---|---|---|---|---|\n",
        );
        let own = |territory: &&Territory| {
            territory.hours != self.elsewhere.hours || !territory.holidays.is_empty() || territory.code == "ZZ"
        };
        for territory in self.territories().filter(own) {
            let hours: Vec<String> = territory.hours.iter().map(hours).collect();
            let days: Vec<String> = territory.holidays.iter().map(ToString::to_string).collect();
            let zones = match territory.zone_names.get(..territory.zones.len()) {
                Some([]) | None => "`default_zone` of the policy, else UTC".to_owned(),
                Some(zones) => zones.join(", "),
            };
            table.push_str(&format!(
                "| {} {} | {} | {} | {zones} | {} |\n",
                territory.code,
                territory.name,
                hours.join("; "),
                days.join(", "),
                territory.source,
            ));
        }
        table
    }
}

fn hours(hours: &Hours) -> String {
    let days = match (hours.days.len(), hours.days.contains(&Weekday::Sunday)) {
        (7, _) => "every day".to_owned(),
        (6, false) => "Monday to Saturday".to_owned(),
        _ => hours
            .days
            .iter()
            .map(|day| format!("{day:?}"))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let time = |time: jiff::civil::Time| format!("{:02}:{:02}", time.hour(), time.minute());
    format!("{days} {}-{}", time(hours.from), time(hours.to))
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Day::Fixed { month, day } => write!(f, "{month:02}-{day:02}"),
            Day::Easter(offset) => write!(f, "Easter{offset:+}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_this_table() {
        let document = include_str!("../../../../docs/rules.md");
        let table = Table::get().markdown();
        assert!(document.contains(&table), "docs/rules.md should hold:\n{table}");
        assert!(document.contains(&Table::get().version));
    }
}
