//! Maps of fields, from one message to the next.
//!
//! In: a map that nobody needs any more. Out: its room, empty, for the next head that this core reads. A request of an HTTP/1
//! caller takes two maps of a KiB or two, and room of that size is what the allocator is slowest at. Of an HTTP/2 caller's, h2
//! makes the one and keeps the other.

use std::cell::RefCell;

use http::HeaderMap;
use http::header::MaxSizeReached;

/// How many are kept on a core: enough for thirty requests at a time, each with its own and its answer's.
const MAPS: usize = 64;

/// Room for more fields than that is not kept: five KiB, and up to nine more where an HTTP/2 answer has many lines of one name.
/// Heads over HTTP/1 have room for as many names as lines, so theirs are bounded by this alone.
const FIELDS: usize = 48;

thread_local! {
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for so many fields.
///
/// # Errors
/// When they are more than any map takes.
pub fn map(fields: usize) -> Result<HeaderMap, MaxSizeReached> {
    let mut map = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    map.try_reserve(fields)?;
    Ok(map)
}

/// Keeps the map's room, and nothing that is in it.
pub fn give_back(mut map: HeaderMap) {
    if (1..=FIELDS).contains(&map.capacity()) {
        map.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MAPS {
                spare.push(map);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, VIA};
    use http::{HeaderName, HeaderValue};

    use super::*;

    /// Each test has a thread, and so spare maps, of its own.
    fn spare() -> Vec<usize> {
        SPARE.with_borrow(|spare| spare.iter().map(HeaderMap::capacity).collect())
    }

    #[test]
    fn a_map_that_comes_again_has_its_room_and_none_of_its_fields() {
        let mut first = map(10).unwrap();
        for value in ["one", "two", "three"] {
            first.append(ACCEPT, HeaderValue::from_static(value));
            first.append(VIA, HeaderValue::from_static(value));
        }
        let room = first.capacity();
        give_back(first);
        assert_eq!(spare(), [room]);
        let second = map(3).unwrap();
        assert_eq!((second.len(), second.capacity(), second.get(ACCEPT)), (0, room, None));
        assert!(spare().is_empty());
        give_back(second);
        assert!(map(room + 1).unwrap().capacity() > room && spare().is_empty());
    }

    #[test]
    fn neither_many_maps_nor_large_ones_are_kept() {
        (0..2 * MAPS).map(|_| map(1).unwrap()).collect::<Vec<_>>().into_iter().for_each(give_back);
        assert_eq!(spare().len(), MAPS);
        SPARE.with_borrow_mut(Vec::clear);
        give_back(map(FIELDS).unwrap());
        assert_eq!(spare(), [FIELDS]);
        let mut large = map(FIELDS).unwrap();
        for number in 0..=FIELDS {
            large.append(HeaderName::try_from(format!("x-{number}")).unwrap(), HeaderValue::from_static("x"));
        }
        give_back(large);
        give_back(HeaderMap::new());
        assert!(spare().is_empty(), "the one has grown, and the other has no room");
        assert!(map(1 << 20).is_err());
    }
}
