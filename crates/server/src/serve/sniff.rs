//! Which protocol a client speaks, found out from its first bytes within a deadline.
//!
//! Libraries that do this wait for as long as the client likes; a connection that says nothing would cost a place for
//! ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// How an HTTP/2 client begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0 or 1.1, or nonsense that the HTTP/1 parser will refuse.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// Reads as much as is needed to tell HTTP/2 from HTTP/1, and gives back a stream that still begins with it.
///
/// Has no deadline of its own: the caller gives it one. An end before the first byte is an error.
pub async fn version<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(Version, Begun<S>)> {
    let mut read = Vec::with_capacity(PREFACE.len());
    let mut limited = (&mut stream).take(PREFACE.len() as u64);
    let version = loop {
        if limited.read_buf(&mut read).await? == 0 && read.len() < PREFACE.len() {
            if read.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            break Version::Http1;
        }
        if !PREFACE.starts_with(&read) {
            break Version::Http1;
        }
        if read.len() == PREFACE.len() {
            break Version::Http2;
        }
    };
    Ok((version, Begun { first: read.into(), stream }))
}

/// A stream of which some bytes were read already; they are read again first.
#[derive(Debug)]
pub struct Begun<S> {
    first: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(self.first.get(..count).unwrap_or_default());
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn told(pieces: &[&[u8]]) -> (Version, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(7);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let writer = tokio::spawn(async move {
            for piece in pieces {
                client.write_all(&piece).await.unwrap();
            }
        });
        let (version, mut stream) = version(server).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        writer.await.unwrap();
        (version, all)
    }

    #[tokio::test]
    async fn the_version_is_told_from_any_division_into_pieces_and_no_byte_is_lost() {
        assert_eq!(told(&[b"GET / HTTP/1.1\r\n\r\n"]).await, (Version::Http1, b"GET / HTTP/1.1\r\n\r\n".to_vec()));
        let (first, rest) = PREFACE.split_at(11);
        assert_eq!(told(&[first, rest, b"more"]).await, (Version::Http2, [PREFACE, b"more"].concat()));
        assert_eq!(told(&[b"PRI * HTTP/2.0\r\n\r\nXX"]).await.0, Version::Http1);
        assert_eq!(told(&[b"P"]).await, (Version::Http1, b"P".to_vec()));
    }

    #[tokio::test]
    async fn a_connection_closed_at_once_is_an_error_and_not_a_request() {
        let (client, server) = tokio::io::duplex(7);
        drop(client);
        assert_eq!(version(server).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
