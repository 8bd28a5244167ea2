//! The rows of a file with keys that another program made.
//!
//! In: CSV, JSON or YAML. Out: rows, each with its place and either what it says or why it cannot be used; no reason
//! repeats a value. A file that is nothing of the kind is one sentence.

use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroU64;
use std::path::Path;

use clap::ValueEnum;
use serde::de::DeserializeSeed as _;
use zeroize::Zeroizing;

use crate::cli::keys::listed;
use crate::fault::is_word;
use crate::keys::paste;
use crate::keys::write::Fields;
use crate::property::PropertyId;
use crate::secret::ApiKey;
use crate::yaml::{self, Budget, Grow, Tree, Veil};

/// The largest file read, in bytes.
const FILE_MAX: u64 = 64 * 1024 * 1024;

/// What a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Format {
    Csv,
    Json,
    Yaml,
}

impl Format {
    pub(super) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" | "tsv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// A row that says all it must.
pub(super) struct Row {
    pub(super) at: String,
    pub(super) properties: Vec<PropertyId>,
    pub(super) key: ApiKey,
    pub(super) fields: Fields,
}

impl Row {
    pub(super) fn named(&self) -> String {
        listed(&self.properties)
    }
}

/// A row's place, and what it says or what is wrong with it.
pub(super) struct Found {
    pub(super) at: String,
    pub(super) row: Result<Row, String>,
}

/// The bytes of a file, or of standard input for `-`.
pub(super) fn bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let mut bytes = Zeroizing::new(Vec::new());
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(FILE_MAX + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| format!("{name}: cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("{name}: is larger than 64 MiB; import it in parts"));
    }
    Ok(bytes)
}

/// The rows of a file.
pub(super) fn rows(format: Format, bytes: &[u8]) -> Result<Vec<Found>, String> {
    let faults =
        |faults: Vec<crate::fault::Fault>| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let text = yaml::text("import", bytes).map_err(faults)?;
    match format {
        Format::Csv => table(text),
        Format::Yaml => {
            let (budget, veil) = (Budget::of(text), Veil::over(text));
            yaml::stream("import", veil.text(), Grow { each: None, budget: &budget, veil: &veil })
                .map(|tree| tree_rows(&tree))
                .map_err(faults)?
        }
        Format::Json => {
            let (budget, veil) = (Budget::of(text), Veil::off(text));
            let mut json = serde_json::Deserializer::from_str(text);
            // serde_json's message may repeat what stands there, so only the place is told.
            let place =
                |error: serde_json::Error| format!("not JSON at line {}, column {}", error.line(), error.column());
            let tree = Grow { each: None, budget: &budget, veil: &veil }.deserialize(&mut json).map_err(place)?;
            json.end().map_err(place)?;
            tree_rows(&tree)
        }
    }
}

/// What a column or field is for, by the names that are used for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Column {
    Property,
    Key,
    App,
    Organization,
    BaseUrl,
}

impl Column {
    fn named(name: &str) -> Option<Self> {
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        match plain.to_ascii_lowercase().as_str() {
            "property" | "properties" | "propertyid" | "propertyids" | "hotelid" => Some(Self::Property),
            "key" | "apikey" | "token" | "accesstoken" => Some(Self::Key),
            "app" => Some(Self::App),
            "organization" | "organisation" | "organizationid" | "organisationid" => Some(Self::Organization),
            "baseurl" => Some(Self::BaseUrl),
            _ => None,
        }
    }
}

/// What a row says, cell by cell.
#[derive(Default)]
struct Cells {
    properties: Vec<Zeroizing<String>>,
    key: Option<Zeroizing<String>>,
    app: Option<Zeroizing<String>>,
    organization: Option<Zeroizing<String>>,
    base_url: Option<Zeroizing<String>>,
}

impl Cells {
    fn set(&mut self, column: Column, text: &str) {
        let cell = Zeroizing::new(text.trim().to_owned());
        if cell.is_empty() {
            return;
        }
        match column {
            Column::Property => {
                let ids = cell.split([',', ';', ' ']).filter(|id| !id.is_empty());
                self.properties.extend(ids.map(|id| Zeroizing::new(id.to_owned())));
            }
            Column::Key => self.key = Some(cell),
            Column::App => self.app = Some(cell),
            Column::Organization => self.organization = Some(cell),
            Column::BaseUrl => self.base_url = Some(cell),
        }
    }

    fn row(self, at: String) -> Found {
        let row = self.parsed(&at);
        Found { at, row }
    }

    fn parsed(self, at: &str) -> Result<Row, String> {
        let mut properties = Vec::with_capacity(self.properties.len());
        for id in &self.properties {
            properties.push(id.parse::<PropertyId>().map_err(|error| error.to_string())?);
        }
        if properties.is_empty() {
            return Err("names no property".to_owned());
        }
        let about = listed(&properties);
        let key = self.key.ok_or_else(|| format!("property {about}: there is no key"))?;
        let key = paste::key(&key).map_err(|error| format!("property {about}: {error}"))?;
        let word = |name: &str, word: Option<Zeroizing<String>>| match word {
            Some(word) if !is_word(&word) => {
                Err(format!("property {about}: {name}: expected at most 64 characters, without spaces"))
            }
            word => Ok(word.map(|word| word.to_string())),
        };
        let base_url = self.base_url.map(|text| text.parse());
        let base_url = base_url
            .transpose()
            .map_err(|error: crate::origin::NotAnOrigin| format!("property {about}: base_url: {error}"))?;
        let fields =
            Fields { app: word("app", self.app)?, organization: word("organization", self.organization)?, base_url };
        Ok(Row { at: at.to_owned(), properties, key, fields })
    }
}

fn table(text: &str) -> Result<Vec<Found>, String> {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    // Spreadsheets of many countries write semicolons.
    let separator = [b'\t', b';', b','].into_iter().find(|byte| first.as_bytes().contains(byte)).unwrap_or(b',');
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    let mut columns = vec![Some(Column::Property), Some(Column::Key)];
    let (mut found, mut number, mut line) = (Vec::new(), 0, Line { at: 0, number: 1 });
    for record in reader.records() {
        // The error may repeat the line.
        let record = record.map_err(|error| match error.position() {
            Some(place) => format!("line {}: is not CSV", place.line()),
            None => "is not CSV".to_owned(),
        })?;
        number += 1;
        if record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        let named: Vec<_> = record.iter().map(Column::named).collect();
        if number == 1 && named.iter().any(Option::is_some) {
            columns = named;
            if !columns.contains(&Some(Column::Property)) || !columns.contains(&Some(Column::Key)) {
                return Err("line 1: names the columns, but not both `property` and `key`".to_owned());
            }
            continue;
        }
        let at = format!("line {}", line.of(text, record.position().map_or(0, csv::Position::byte)));
        let mut cells = Cells::default();
        for (cell, column) in record.iter().zip(&columns) {
            if let Some(column) = column {
                cells.set(*column, cell);
            }
        }
        found.push(cells.row(at));
    }
    Ok(found)
}

/// Counts lines as an editor does. The reader's own count stops before the line breaks in front of a record.
struct Line {
    at: usize,
    number: usize,
}

impl Line {
    /// The line of the record that begins at or behind `byte`; records come in order.
    fn of(&mut self, text: &str, byte: u64) -> usize {
        let byte = usize::try_from(byte).unwrap_or(usize::MAX).max(self.at);
        let passed = text.get(self.at..byte).unwrap_or_default();
        (self.at, self.number) = (self.at + passed.len(), self.number + passed.matches('\n').count());
        let skipped = |line: &&str| line.trim().is_empty() || line.starts_with('#');
        let rest = text.get(self.at..).unwrap_or_default();
        for line in rest.split_inclusive('\n').take_while(skipped) {
            (self.at, self.number) = (self.at + line.len(), self.number + line.matches('\n').count());
        }
        self.number
    }
}

fn tree_rows(tree: &Tree) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    match tree {
        Tree::List(items) => listed_rows(items, &mut found),
        Tree::Map(entries) => {
            for (number, (name, value)) in entries.iter().enumerate() {
                match value {
                    Tree::List(items) if name.as_str() == "keys" => listed_rows(items, &mut found),
                    _ => {
                        let mut cells = fields(value);
                        cells.properties = vec![name.clone()];
                        found.push(cells.row(format!("row {}", number + 1)));
                    }
                }
            }
        }
        _ => return Err("expected rows: a mapping of property ids to keys, or a list of objects".to_owned()),
    }
    Ok(found)
}

fn listed_rows(items: &[Tree], found: &mut Vec<Found>) {
    for (number, item) in items.iter().enumerate() {
        found.push(fields(item).row(format!("item {}", number + 1)));
    }
}

fn fields(value: &Tree) -> Cells {
    let mut cells = Cells::default();
    match value {
        Tree::Text(text) => cells.set(Column::Key, text),
        Tree::Map(entries) => {
            for (name, value) in entries {
                let Some(column) = Column::named(name) else { continue };
                match value {
                    Tree::Text(text) => cells.set(column, text),
                    Tree::Number(number) => cells.set(column, &number.to_string()),
                    Tree::List(items) if column == Column::Property => {
                        for item in items {
                            match item {
                                Tree::Number(id) => {
                                    cells.set(column, &NonZeroU64::new(*id).map_or("0".to_owned(), |id| id.to_string()))
                                }
                                other => {
                                    cells.set(column, if other.as_text().is_empty() { "?" } else { other.as_text() })
                                }
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(format: Format, text: &str) -> Vec<String> {
        let found =
            rows(format, text.as_bytes()).unwrap_or_else(|error| vec![Found { at: "file".into(), row: Err(error) }]);
        let one = |found: Found| match found.row {
            Ok(row) => {
                let Fields { app, organization, base_url } = &row.fields;
                let more = [app.clone(), organization.clone(), base_url.as_ref().map(ToString::to_string)];
                let more: String = more.into_iter().flatten().map(|word| format!(" {word}")).collect();
                format!("{}: {} {}{more}", found.at, row.named(), row.key.digest().short())
            }
            Err(why) => format!("{}: {why}", found.at),
        };
        found.into_iter().map(one).collect()
    }

    fn short(key: &str) -> String {
        ApiKey::parse(key).unwrap().digest().short()
    }

    #[test]
    fn tables_come_with_and_without_a_head_and_with_any_separator() {
        let (blue, red) = (short("cbat_blue"), short("cbat_red"));
        let plain = [format!("line 1: 1001 {blue}"), format!("line 3: 1002 {red}")];
        assert_eq!(told(Format::Csv, "1001,cbat_blue\r\n\r\n1002, \"cbat_red\"\r\n"), plain);
        assert_eq!(told(Format::Csv, "\u{feff}1001;cbat_blue\n# c\n1002;cbat_red\n"), plain);
        let named = "Hotel;API Key;Property ID;Organisation;app\nSea;Bearer cbat_blue;1001;org_7;main\n;cbat_red;\"1002,1003\";;\n";
        assert_eq!(
            told(Format::Csv, named),
            [format!("line 2: 1001 {blue} main org_7"), format!("line 3: 1002 and 1003 {red}")]
        );
    }

    #[test]
    fn json_and_yaml_come_as_key_files_or_lists_of_objects() {
        let (blue, red) = (short("cbat_blue"), short("cbat_red"));
        let json = r#"{"1001": "cbat_blue",
			"1002": {"key": "cbat_red", "base_url": "https://a.test"}}"#;
        assert_eq!(
            told(Format::Json, json),
            [format!("row 1: 1001 {blue}"), format!("row 2: 1002 {red} https://a.test")]
        );
        let list = r#"[{"propertyID": 1001, "access_token": "cbat_blue", "name": "Sea"}, {"properties": [1002, "1003"], "key": "cbat_red"}]"#;
        assert_eq!(told(Format::Json, list), [format!("item 1: 1001 {blue}"), format!("item 2: 1002 and 1003 {red}")]);
        let yaml = "1001: cbat_blue\nkeys:\n- { key: cbat_red, properties: [1002], app: main }\n";
        assert_eq!(told(Format::Yaml, yaml), [format!("row 1: 1001 {blue}"), format!("item 1: 1002 {red} main")]);
    }

    #[test]
    fn a_bad_row_is_told_by_its_place_and_never_by_its_values() {
        for (format, text, words) in [
            (Format::Csv, "1001,blue\n", "line 1: property 1001: there is no key in what was entered"),
            (Format::Csv, "cbat_blue,1001\n", "line 1: not a property id"),
            (Format::Csv, "1001\n", "line 1: property 1001: there is no key"),
            (Format::Csv, "property,note\n1001,blue\n", "file: line 1: names the columns, but not both"),
            (
                Format::Csv,
                "property,key,app\n1001,cbat_blue,cbat_blue\n",
                "line 2: property 1001: app: expected at most",
            ),
            (
                Format::Csv,
                "property,key,base_url\n1001,cbat_blue,http://blue.test\n",
                "line 2: property 1001: base_url: must",
            ),
            (Format::Json, "{\"1001\": cbat_blue}", "file: not JSON at line 1, column 10"),
            (Format::Json, "{} blue", "file: not JSON at line 1, column 4"),
            (Format::Json, "\"cbat_blue\"", "file: expected rows"),
            (Format::Json, "[{\"property\": [\"blue\"], \"key\": \"cbat_blue\"}]", "item 1: not a property id"),
            (Format::Json, "[\"cbat_blue\"]", "item 1: names no property"),
            (Format::Yaml, "1001: 'cbat_blue", "file: import:1:17: a quote is not closed"),
            (Format::Yaml, "blue: cbat_blue", "row 1: not a property id"),
        ] {
            let told = told(format, text);
            assert!(told.len() == 1 && told[0].starts_with(words), "{text:?} gave {told:?}");
            assert!(!told[0].contains("blue"), "{told:?}");
        }
    }
}
