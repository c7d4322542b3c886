//! Servers too old to be found on a machine of today: as much of their protocol as it takes to say how old they are.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves each connection; the port on 127.0.0.1. Ends with the runtime.
async fn listen<F: Future<Output = std::io::Result<()>> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client));
        }
    });
    port
}

/// A Redis of this version, such as `6.2.14`: the port it listens on.
///
/// # Panics
/// When no port is free.
pub async fn old_redis(version: &'static str) -> u16 {
    listen(move |mut client| async move {
        let mut piece = [0; 4096];
        loop {
            let length @ 1.. = client.read(&mut piece).await? else { return Ok(()) };
            let asked = String::from_utf8_lossy(&piece[..length]).into_owned();
            let body = format!("redis_version:{version}\r\nrole:master\r\n");
            let answer = if asked.contains("$4\r\nINFO\r\n") {
                format!("${}\r\n{body}\r\n", body.len())
            } else {
                // `HELLO` and `CLIENT SETINFO`, which it does not know.
                "-ERR unknown\r\n".repeat(asked.matches('*').count())
            };
            client.write_all(answer.as_bytes()).await?;
        }
    })
    .await
}

/// A PostgreSQL of this version, such as `12.22`, that lets everybody in: the port it listens on.
///
/// # Panics
/// When no port is free.
pub async fn old_postgres(version: &'static str) -> u16 {
    listen(move |mut client| async move {
        // Each first message: its length, four bytes that say what it is, the rest (PostgreSQL's documentation, "Message Formats").
        loop {
            let (length, kind) = (client.read_u32().await?, client.read_u32().await?);
            let mut rest = vec![0; (length as usize).saturating_sub(8)];
            client.read_exact(&mut rest).await?;
            if kind == 196_608 {
                break;
            }
            // It speaks no TLS.
            client.write_all(b"N").await?;
        }
        let parameter = format!("server_version\0{version}\0");
        let mut greeting = b"R\0\0\0\x08\0\0\0\0S".to_vec();
        greeting.extend(u32::try_from(parameter.len() + 4).expect("a short text").to_be_bytes());
        greeting.extend(parameter.as_bytes());
        greeting.extend(b"K\0\0\0\x0c\0\0\0\x01\0\0\0\x01Z\0\0\0\x05I");
        client.write_all(&greeting).await?;
        // Nobody asks it anything but to let him go.
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.map(drop)
    })
    .await
}
