//! Which key somebody meant.

use super::keys;

/// How many letters must be changed, left out or swapped to get from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut next = vec![i.saturating_add(1)];
        for (j, other) in b.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX);
            let replace = at(&row, j).saturating_add(usize::from(letter != *other));
            let insert = at(&row, j.saturating_add(1)).min(at(&next, j)).saturating_add(1);
            next.push(replace.min(insert));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

fn closest<'a>(path: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The name may be as long as the file: nobody misspells a key by more than a few letters.
    if path.len() > 100 {
        return None;
    }
    let near = names.map(|name| (distance(path, name), name)).min()?;
    (near.0 <= (path.len() / 3).max(2)).then_some(near.1)
}

/// The key nearest to `path`: by its whole name, else one of the same last name elsewhere.
pub(super) fn key(path: &str) -> Option<&'static str> {
    let last = path.rsplit('.').next().unwrap_or(path);
    let same_name = || keys::all().map(|key| key.path).find(|known| known.rsplit('.').next() == Some(last));
    // A key of the same last name in another table is a better guess than another key with a like name in this one.
    let here = closest(path, keys::all().map(|key| key.path));
    here.filter(|known| distance(known, path) <= 3).or_else(same_name).or(here)
}

/// A sentence about an unknown key or table.
pub(super) fn hint(path: &str) -> Option<String> {
    let tables = || keys::TABLES.iter().map(|table| table.path);
    let depth = path.matches('.').count();
    // Names of the same depth, including those of tables that only hold tables (`limits.tiers`).
    let prefixes = tables().filter_map(|table| {
        let end = table.match_indices('.').map(|(at, _)| at).chain([table.len()]).nth(depth)?;
        table.get(..end)
    });
    let table = closest(path, prefixes)
        .filter(|near| distance(near, path) <= 2)
        .map(|table| format!("Did you mean the table `[{table}]`?"));
    let named = || key(path).map(|key| format!("Did you mean `{key}`?"));
    let listed = || {
        let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        let table = keys::TABLES.iter().find(|table| table.path == parent)?;
        let names: Vec<_> = table.keys.iter().filter_map(|key| key.path.rsplit('.').next()).collect();
        Some(format!("`[{parent}]` has: {}.", names.join(", ")))
    };
    let tables = || Some(format!("The tables are: {}.", tables().collect::<Vec<_>>().join(", ")));
    table.or_else(named).or_else(listed).or_else(tables)
}
