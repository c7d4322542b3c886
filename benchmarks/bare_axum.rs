//! The yardstick of `./bench`: axum and nothing else, with the allocator and runtime of the real program, answering the
//! same path with as many bytes. It prints its address and serves until it is killed.
#![allow(clippy::print_stdout, reason = "a program for the bench script, which reads its address")]

use std::net::SocketAddr;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header;
use tokio::net::TcpListener;

/// As long as a real answer of `GET /v1/whoami`.
const BODY: &str = r#"{"sub":"usr_0190a0a0a0a070008000000000000001","tenant":"ten_0190a0a0a0a070008000000000000002","tier":"enterprise","role":"member","session":"ses_0190a0a0a0a070008000000000000003"}"#;

async fn whoami() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], BODY)
}

fn main() -> std::io::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        println!("http://{}", listener.local_addr()?);
        axum::serve(listener, Router::new().route("/v1/whoami", get(whoami))).await
    })
}
