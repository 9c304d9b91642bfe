//! Connections: how many there may be, how long they may say nothing, and how they end.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

/// So many are served at once; more must wait to be accepted.
const MOST: usize = 1024;
/// A client that takes longer for the head of a request, or between two of them, is cut.
/// Ours let go of a silent connection after 90 seconds, so that it is never cut under one.
const HEAD: Duration = Duration::from_secs(120);
/// After a failure to accept, which is mostly one for lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until `closing` is ready, and then until all requests are answered.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Router,
    closing: impl Future<Output = ()>,
) -> io::Result<()> {
    serve_some(listener, routes, closing, (MOST, HEAD)).await
}

async fn serve_some(
    listener: TcpListener,
    routes: Router,
    closing: impl Future<Output = ()>,
    (most, head): (usize, Duration),
) -> io::Result<()> {
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(head);
    let (graceful, room) = (GracefulShutdown::new(), Arc::new(Semaphore::new(most)));
    let mut closing = pin!(closing);
    loop {
        let next = async {
            let permit = room.clone().acquire_owned().await.map_err(io::Error::other)?;
            let (socket, _) = listener.accept().await?;
            Ok::<_, io::Error>((socket, permit))
        };
        let (socket, permit) = tokio::select! {
            next = next => match next {
                Ok(next) => next,
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            () = &mut closing => break,
        };
        if let Err(error) = socket.set_nodelay(true) {
            warn!(%error, "a connection will be slow");
        }
        let service = TowerToHyperService::new(routes.clone());
        let connection = http.serve_connection_with_upgrades(TokioIo::new(socket), service);
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test]
    async fn connections_are_bounded_and_silent_ones_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (close, closing) = oneshot::channel::<()>();
        let routes = Router::new().route("/", axum::routing::get(async || "here"));
        let limits = (2, Duration::from_millis(300));
        let closing = async {
            let _ = closing.await;
        };
        let served = tokio::spawn(serve_some(listener, routes, closing, limits));
        let answered = async |socket: &mut TcpStream| {
            let mut buffer = [0; 512];
            let read = socket.read(&mut buffer).await.unwrap();
            String::from_utf8_lossy(&buffer[..read]).contains("here")
        };
        // Two that say half a word keep the third waiting, until they are cut for it.
        let mut silent = Vec::new();
        for _ in 0..2 {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(b"GET / HT").await.unwrap();
            silent.push(socket);
        }
        let mut third = TcpStream::connect(address).await.unwrap();
        third.write_all(GET).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), answered(&mut third)).await;
        assert!(early.is_err(), "it was served beside two others");
        assert!(answered(&mut third).await);
        for mut socket in silent {
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).await.unwrap();
            assert!(!String::from_utf8_lossy(&rest).contains("here"));
        }
        close.send(()).unwrap();
        served.await.unwrap().unwrap();
    }
}
