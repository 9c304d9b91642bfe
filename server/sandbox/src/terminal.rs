//! A terminal inside a sandbox that is shown on the one outside.
//!
//! There is one thread, so that nothing here may block but what is shown.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::pin::pin;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::platform::watched;

const PIECE: usize = 16 << 10;

/// The terminal outside, which passes on every key as long as this lives.
pub(crate) struct Terminal {
    /// Opened anew: that it does not block must not be so for others who have it open.
    keys: AsyncFd<File>,
    before: Termios,
}

impl Terminal {
    pub(crate) fn take() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
        let flags = i32::try_from(flags).map_err(io::Error::other)?;
        let keys = File::options().read(true).custom_flags(flags).open("/proc/self/fd/0")?;
        let mut raw = before.clone();
        raw.make_raw();
        let this = Self { keys: watched(keys, Interest::READABLE)?, before };
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(this)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Whoever closed it does not see it any more.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// The terminal inside.
pub(crate) struct Inner {
    master: AsyncFd<File>,
}

impl Inner {
    /// Makes one, and gives it as the standard streams of a command.
    pub(crate) fn open(terminal: &Terminal) -> io::Result<(Self, [OwnedFd; 3])> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let end = ioctl_tiocgptpeer(&master, flags)?;
        let ends = [end.try_clone()?, end.try_clone()?, end];
        let nonblocking = rustix::fs::fcntl_getfl(&master)? | OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(&master, nonblocking)?;
        let inner =
            Self { master: watched(master.into(), Interest::READABLE | Interest::WRITABLE)? };
        inner.resize(terminal);
        Ok((inner, ends))
    }

    /// Makes it as large as the one outside.
    pub(crate) fn resize(&self, terminal: &Terminal) {
        // One without a size is no reason to fail.
        let _ = tcgetwinsize(terminal.keys.get_ref())
            .and_then(|size| tcsetwinsize(self.master.get_ref(), size));
    }

    /// Shows what is written inside, and passes on what is typed outside, until `ended`.
    pub(crate) async fn relay<T>(
        &self,
        terminal: &Terminal,
        ended: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let mut shown = pin!(self.show());
        let mut typed = pin!(self.type_in(terminal));
        let mut ended = pin!(ended);
        let (mut shows, mut types) = (true, true);
        let value = loop {
            tokio::select! {
                value = &mut ended => break value?,
                _ = &mut shown, if shows => shows = false,
                _ = &mut typed, if types => types = false,
            }
        };
        // What was written before the end is all there.
        let mut piece = vec![0; PIECE];
        while let Ok(read @ 1..) = self.master.get_ref().read(&mut piece) {
            show(&piece[..read])?;
        }
        Ok(value)
    }

    async fn show(&self) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let read = self.master.async_io(Interest::READABLE, |mut it| it.read(&mut piece));
            match read.await? {
                0 => return Ok(()),
                read => show(&piece[..read])?,
            }
        }
    }

    async fn type_in(&self, terminal: &Terminal) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let read = terminal.keys.async_io(Interest::READABLE, |mut it| it.read(&mut piece));
            let read = read.await?;
            if read == 0 {
                return Ok(());
            }
            let mut left = &piece[..read];
            while !left.is_empty() {
                let written = self.master.async_io(Interest::WRITABLE, |mut it| it.write(left));
                left = &left[written.await?..];
            }
        }
    }
}

fn show(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}
