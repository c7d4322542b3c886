//! Lists, page by page: the cursor is the id of the last row shown, made opaque so that nobody builds on its form.
//!
//! A forged cursor only chooses another place in the caller's own list: the border is the scope, not the cursor.

use std::str::FromStr;

use bartizan_core::error::Code;
use bartizan_core::input::Cursor;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::api::{Failure, Page};

/// Where a list goes on.
///
/// # Errors
/// `request.cursor_invalid` for what no earlier page gave.
pub(crate) fn position<T: FromStr>(cursor: Option<&Cursor>) -> Result<Option<T>, Failure> {
    let Some(cursor) = cursor else { return Ok(None) };
    let read = |text: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        std::str::from_utf8(&bytes).ok()?.parse().ok()
    };
    read(cursor.as_str()).map(Some).ok_or_else(|| Code::CursorInvalid.into())
}

/// Makes a page of at most `limit` rows out of `limit + 1`.
pub(crate) fn page<R, V>(
    mut rows: Vec<R>,
    limit: usize,
    place: impl Fn(&R) -> String,
    view: impl FnMut(R) -> Result<V, Failure>,
) -> Result<Page<V>, Failure> {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| URL_SAFE_NO_PAD.encode(place(row)));
    Ok(Page { items: rows.into_iter().map(view).collect::<Result<_, _>>()?, next })
}

/// One row more than the page has, to know whether there is another page.
pub(crate) fn one_more(limit: usize) -> u32 {
    u32::try_from(limit.saturating_add(1)).unwrap_or(u32::MAX)
}
