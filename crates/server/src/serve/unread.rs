//! What is no request is answered like one.
//!
//! The HTTP/1 implementation answers bytes it cannot read by itself: a bare 400, 414 or 431, after which it closes. That
//! answer never comes past the application, so it would leave without security headers, request id and problem. It is
//! known by its exact shape, held back, and replaced when the connection is closed right after it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bartizan_core::error::Code;
use bytes::{Buf, Bytes};
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The application's answer to what it will never see.
#[derive(Clone)]
pub struct Unread(Arc<dyn Fn(Code) -> Response<Vec<u8>> + Send + Sync>);

impl std::fmt::Debug for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unread")
    }
}

impl Unread {
    /// Asks `answer` each time.
    pub fn new(answer: impl Fn(Code) -> Response<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(answer))
    }

    /// The answer as such.
    pub fn answer(&self, code: Code) -> Response<Vec<u8>> {
        (self.0)(code)
    }

    /// The answer as the last message of an HTTP/1.1 connection (RFC 9112).
    pub fn last_message(&self, code: Code, date: Option<&[u8]>) -> Bytes {
        let (parts, body) = self.answer(code).into_parts();
        let reason = parts.status.canonical_reason().unwrap_or_default();
        let mut message = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_u16()).into_bytes();
        let mut field = |name: &[u8], value: &[u8]| message.extend([name, b": ", value, b"\r\n"].concat());
        for (name, value) in &parts.headers {
            field(name.as_str().as_bytes(), value.as_bytes());
        }
        field(b"connection", b"close");
        field(b"content-length", body.len().to_string().as_bytes());
        if let Some(date) = date {
            field(b"date", date);
        }
        message.extend(b"\r\n");
        message.extend(body);
        message.into()
    }
}

/// What stands between the status line and the date in an answer of the implementation's own.
const BARE: &[u8] = b"\r\nconnection: close\r\ncontent-length: 0\r\ndate: ";
/// Bytes of a date (RFC 9110 section 5.6.7).
const DATE: usize = 29;
const END: &[u8] = b"\r\n\r\n";
const VERSION: &[u8] = b"HTTP/1.1 ";
/// The longest status line there is among them has 44.
const STATUS_LINE: usize = 64;

/// An answer of the implementation's own, found at the end of `bytes`: where it begins, what it stands for, its date.
fn bare(bytes: &[u8]) -> Option<(usize, Code, &[u8])> {
    let (rest, date) = bytes.strip_suffix(END)?.split_at_checked(bytes.len().checked_sub(END.len() + DATE)?)?;
    let rest = rest.strip_suffix(BARE)?;
    let from = rest.len().saturating_sub(STATUS_LINE);
    let at = from + rest.get(from..)?.windows(VERSION.len()).rposition(|bytes| bytes == VERSION)?;
    let line = rest.get(at..)?.strip_prefix(VERSION)?;
    let code = match line.first_chunk()? {
        // With other fields between it is an answer of ours.
        _ if line.contains(&b'\r') => return None,
        b"414" | b"431" => Code::HeadTooLarge,
        b"400" => Code::Malformed,
        _ => return None,
    };
    Some((at, code, date))
}

/// The stream below the HTTP/1 implementation.
#[derive(Debug)]
pub struct Replacing<S> {
    stream: S,
    unread: Unread,
    /// Looks like the last answer; the implementation takes it for written.
    held: Bytes,
    replaced: bool,
}

impl<S> Replacing<S> {
    /// Lets `unread` answer what cannot be read from `stream`.
    pub fn new(stream: S, unread: Unread) -> Self {
        Self { stream, unread, held: Bytes::new(), replaced: false }
    }
}

impl<S: AsyncWrite + Unpin> Replacing<S> {
    fn release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replacing<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replacing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // More follows, so it was no last answer: part of a body perhaps.
        ready!(self.release(cx))?;
        match bare(bytes) {
            Some((0, ..)) => {
                self.held = Bytes::copy_from_slice(bytes);
                Poll::Ready(Ok(bytes.len()))
            }
            Some((at, ..)) => Pin::new(&mut self.stream).poll_write(cx, bytes.get(..at).unwrap_or(bytes)),
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.replaced
            && let Some((_, code, date)) = bare(&self.held)
        {
            self.held = self.unread.last_message(code, Some(date));
            self.replaced = true;
        }
        ready!(self.release(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const BARE_400: &[u8] =
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: Tue, 24 Nov 2026 16:27:42 GMT\r\n\r\n";

    fn unread() -> Unread {
        Unread::new(|code| Response::builder().status(code.status()).header("x-a", "b").body(b"body".to_vec()).unwrap())
    }

    /// What a client reads when the implementation writes `pieces` and closes.
    async fn written(pieces: &[&[u8]]) -> String {
        let (mut client, server) = tokio::io::duplex(7);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let writer = tokio::spawn(async move {
            let mut stream = Replacing::new(server, unread());
            for piece in pieces {
                stream.write_all(&piece).await.unwrap();
                stream.flush().await.unwrap();
            }
            stream.shutdown().await.unwrap();
        });
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        writer.await.unwrap();
        all
    }

    const OURS: &str = "HTTP/1.1 400 Bad Request\r\nx-a: b\r\nconnection: close\r\ncontent-length: 4\r\n\
         date: Tue, 24 Nov 2026 16:27:42 GMT\r\n\r\nbody";

    #[tokio::test]
    async fn a_bare_answer_at_the_end_is_replaced_alone_or_behind_another() {
        assert_eq!(written(&[BARE_400]).await, OURS);
        let before = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let both = [before.as_bytes(), BARE_400].concat();
        assert_eq!(written(&[&both]).await, format!("{before}{OURS}"));
        assert_eq!(written(&[before.as_bytes(), BARE_400]).await, format!("{before}{OURS}"));
        let large = String::from_utf8(BARE_400.to_vec()).unwrap();
        let large = large.replace("400 Bad Request", "431 Request Header Fields Too Large");
        let answer = written(&[large.as_bytes()]).await;
        assert!(answer.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\nx-a: b\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn what_only_looks_like_one_passes_byte_for_byte() {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        for piece in [&BARE_400[1..], &BARE_400[..BARE_400.len() - 1], b"\r\n\r\n", b"", b"x"] {
            assert_eq!(written(&[piece]).await, text(piece));
        }
        let ours = text(BARE_400).replace("connection", "x-a: b\r\nconnection");
        assert_eq!(written(&[ours.as_bytes()]).await, ours);
        let other = text(BARE_400).replace("400 Bad Request", "404 Not Found");
        assert_eq!(written(&[other.as_bytes()]).await, other);
        // In the middle of a body.
        assert_eq!(written(&[BARE_400, b"more"]).await, text(BARE_400) + "more");
    }
}
