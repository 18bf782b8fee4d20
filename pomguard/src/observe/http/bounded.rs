//! Connections of bounded cost: a slot, a time, a number of bytes.

use std::{
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep_until},
};

use super::ConnectionLimits;

/// Accepts as many connections as there are slots; the others wait in the kernel's queue.
pub(super) struct BoundedListener {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    limits: ConnectionLimits,
}

impl BoundedListener {
    pub(super) fn new(listener: TcpListener, limits: ConnectionLimits) -> Self {
        Self { listener, slots: Arc::new(Semaphore::new(limits.connections)), limits }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        loop {
            // The semaphore is never closed, so the error cannot occur. Without a slot, this connection would
            // merely not be counted.
            let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, peer)) => return (BoundedStream::new(stream, slot, self.limits), peer),
                Err(error) => {
                    // Probably out of file descriptors: without a pause this would spin.
                    log::warn!("metrics: a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends by itself: when the request does not arrive in time or is too long, or when the
/// client does not read the answer in time.
pub(super) struct BoundedStream {
    stream: TcpStream,
    _slot: Option<OwnedSemaphorePermit>,
    /// The deadline of the request; once the answer begins, the deadline of the connection.
    deadline: Pin<Box<Sleep>>,
    end: Instant,
    answering: bool,
    bytes_left: usize,
}

impl BoundedStream {
    fn new(stream: TcpStream, slot: Option<OwnedSemaphorePermit>, limits: ConnectionLimits) -> Self {
        let now = Instant::now();
        Self {
            stream,
            _slot: slot,
            deadline: Box::pin(sleep_until(now + limits.request)),
            end: now + limits.connection,
            answering: false,
            bytes_left: limits.request_bytes,
        }
    }

    /// Returns an error if the deadline is over; otherwise wakes this task at the deadline.
    fn in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Records that the answer has begun: from now on the deadline of the connection holds.
    fn answer(&mut self) {
        if !self.answering {
            self.answering = true;
            self.deadline.as_mut().reset(self.end);
        }
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(context)?;
        if self.bytes_left == 0 {
            // The rest is not read: neither headers without end nor a body.
            return Poll::Ready(Ok(()));
        }
        let mut part = [0; 1024];
        let room = part.len().min(self.bytes_left).min(buffer.remaining());
        let mut part = ReadBuf::new(&mut part[..room]);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
        self.bytes_left -= part.filled().len();
        buffer.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.answer();
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.answer();
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
