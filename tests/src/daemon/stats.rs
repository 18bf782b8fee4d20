//! Reads `pomguard stats --json`, as a monitoring system would.

use serde_json::Value;

/// One reading.
#[derive(Clone, Debug)]
pub struct Stats(Value);

impl Stats {
    pub(super) fn parse(text: &[u8]) -> Self {
        Self(serde_json::from_slice(text).expect("stats --json writes JSON"))
    }

    /// Returns the digest of the image in force.
    pub fn image(&self) -> String {
        self.text("image")
    }

    /// Returns the generation in force.
    pub fn generation(&self) -> u64 {
        self.0["generation"].as_u64().unwrap()
    }

    /// Returns a text field of the top level.
    pub fn text(&self, field: &str) -> String {
        self.0[field].as_str().unwrap_or_else(|| panic!("no {field} in {}", self.0)).to_owned()
    }

    /// Returns the XDP attach mode of each interface.
    pub fn attached(&self) -> Vec<String> {
        let attach = self.0["attach"].as_array().unwrap();
        attach.iter().map(|info| info["xdp"].as_str().unwrap().to_owned()).collect()
    }

    /// Returns the attach modes of both programs at the first interface: XDP, then TC.
    pub fn attachment(&self) -> [String; 2] {
        let info = &self.0["attach"][0];
        ["xdp", "tc"].map(|hook| info[hook].as_str().unwrap_or("none").to_owned())
    }

    /// Returns a number of the totals of one direction: `seen`, `passed`, `dropped`, `audited`.
    pub fn total(&self, direction: &str, field: &str) -> u64 {
        let totals = self.0["totals"].as_array().unwrap();
        let of = totals.iter().find(|total| total["direction"] == direction);
        of.unwrap_or_else(|| panic!("no totals of {direction} in {}", self.0))[field].as_u64().unwrap()
    }

    /// Returns a number of one row: `packets`, `bytes`, `connections`. Returns 0 if the row is absent.
    pub fn row(&self, id: &str, direction: &str, field: &str) -> u64 {
        let rows = self.0["rows"].as_array().unwrap();
        let of = rows.iter().find(|row| row["id"] == id && row["direction"] == direction);
        of.map_or(0, |row| row[field].as_u64().unwrap())
    }

    /// Returns the mode of one row, as read back from the kernel.
    pub fn row_mode(&self, id: &str, direction: &str) -> String {
        let rows = self.0["rows"].as_array().unwrap();
        let of = rows.iter().find(|row| row["id"] == id && row["direction"] == direction);
        let of = of.unwrap_or_else(|| panic!("no row {id} {direction} in {}", self.0));
        of["mode"].as_str().unwrap().to_owned()
    }

    /// Returns the packets of one reason. Returns 0 if the reason never occurred.
    pub fn reason(&self, name: &str, direction: &str, verdict: &str) -> u64 {
        let reasons = self.0["reasons"].as_array().unwrap();
        reasons
            .iter()
            .filter(|it| it["name"] == name && it["direction"] == direction && it["verdict"] == verdict)
            .map(|it| it["packets"].as_u64().unwrap())
            .sum()
    }

    /// Returns the number of flows that were entered into the flow table.
    pub fn flows_opened(&self) -> u64 {
        self.0["flows"]["opened"].as_u64().unwrap()
    }

    /// Returns the number of flow table entries of one kind.
    pub fn flows(&self, kind: &str) -> u64 {
        self.0["flows"]["kinds"][kind].as_u64().unwrap_or_else(|| panic!("no {kind} in {}", self.0))
    }

    /// Returns the reasons under which packets were dropped, each with the number of packets.
    pub fn drops(&self, direction: &str) -> Vec<(String, u64)> {
        let reasons = self.0["reasons"].as_array().unwrap().iter();
        let dropped = reasons.filter(|it| it["direction"] == direction && it["verdict"] == "drop");
        let drops =
            dropped.map(|it| (it["name"].as_str().unwrap().to_owned(), it["packets"].as_u64().unwrap()));
        drops.filter(|(_, packets)| *packets > 0).collect()
    }

    /// Returns the packets of one direction over all reasons and verdicts.
    pub fn judged(&self, direction: &str) -> u64 {
        let reasons = self.0["reasons"].as_array().unwrap();
        let of = reasons.iter().filter(|it| it["direction"] == direction);
        of.map(|it| it["packets"].as_u64().unwrap()).sum()
    }

    /// Asserts that no counter is smaller than in `before`.
    pub fn assert_not_behind(&self, before: &Self) {
        for direction in ["inbound", "outbound"] {
            for field in ["seen", "seen_bytes", "passed", "dropped"] {
                let (then, now) = (before.total(direction, field), self.total(direction, field));
                assert!(now >= then, "{direction} {field} went from {then} back to {now}");
            }
        }
        for row in before.0["rows"].as_array().unwrap() {
            let (id, direction) = (row["id"].as_str().unwrap(), row["direction"].as_str().unwrap());
            for field in ["packets", "bytes", "connections"] {
                let (then, now) = (row[field].as_u64().unwrap(), self.row(id, direction, field));
                assert!(now >= then, "{id} {direction} {field} went from {then} back to {now}");
            }
        }
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:#}", self.0)
    }
}
