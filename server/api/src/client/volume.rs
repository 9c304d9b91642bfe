//! Volumes, snapshots and conflicts.

use reqwest::Method;

use super::{Client, Done, data, json};
use crate::documented::{ConflictList, ConflictStatus, SetConflict, SyncConflict};
use crate::error::Error;
use crate::volumes::{ChangeVolume, NewSnapshot, NewVolume, Restoring, SandboxVolume, Snapshot};

impl Client {
    /// Makes a Volume.
    ///
    /// # Errors
    /// See [`Error`]; so for all methods of the client.
    pub async fn create_volume(&self, new: &NewVolume) -> Result<SandboxVolume, Error> {
        self.post(&[], new).await
    }

    /// A Volume.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn volume(&self, volume: &str) -> Result<SandboxVolume, Error> {
        self.get(&[volume]).await
    }

    /// Changes a Volume's quota.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn change_volume(
        &self,
        volume: &str,
        change: &ChangeVolume,
    ) -> Result<SandboxVolume, Error> {
        data(json(self.request(Method::PATCH, &[volume])?, change)?).await
    }

    /// The team's Volumes, newest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn volumes(&self) -> Result<Vec<SandboxVolume>, Error> {
        let all: Option<Vec<SandboxVolume>> = self.get(&[]).await?;
        Ok(all.unwrap_or_default())
    }

    /// Deletes a Volume, its snapshots, replicas, journal and conflicts; one
    /// that is in use only when `force` is set.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_volume(&self, volume: &str, force: bool) -> Result<(), Error> {
        let request = self.request(Method::DELETE, &[volume])?;
        data::<Done>(request.query(&[("force", force)])).await.map(|_| ())
    }

    /// Makes a Volume that starts as `volume` is now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fork_volume(&self, volume: &str, new: &NewVolume) -> Result<SandboxVolume, Error> {
        self.post(&[volume, "fork"], new).await
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_snapshot(
        &self,
        volume: &str,
        name: &str,
        description: &str,
    ) -> Result<Snapshot, Error> {
        let new = NewSnapshot { name: name.into(), description: description.into() };
        self.post(&[volume, "snapshots"], &new).await
    }

    /// A Volume's snapshots, newest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn snapshots(&self, volume: &str) -> Result<Vec<Snapshot>, Error> {
        let all: Option<Vec<Snapshot>> = self.get(&[volume, "snapshots"]).await?;
        Ok(all.unwrap_or_default())
    }

    /// A snapshot.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn snapshot(&self, volume: &str, snapshot: &str) -> Result<Snapshot, Error> {
        self.get(&[volume, "snapshots", snapshot]).await
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_snapshot(&self, volume: &str, snapshot: &str) -> Result<(), Error> {
        let request = self.request(Method::DELETE, &[volume, "snapshots", snapshot])?;
        data::<Done>(request).await.map(|_| ())
    }

    /// Makes the Volume hold what the snapshot holds, by ordinary entries.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn restore_snapshot(
        &self,
        volume: &str,
        snapshot: &str,
        restoring: &Restoring,
    ) -> Result<(), Error> {
        let parts = [volume, "snapshots", snapshot, "restore"];
        data::<Done>(self.request(Method::POST, &parts)?.query(restoring)).await.map(|_| ())
    }

    /// A Volume's conflicts, newest first; those of one status, or all.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn conflicts(
        &self,
        volume: &str,
        status: Option<ConflictStatus>,
    ) -> Result<Vec<SyncConflict>, Error> {
        let mut request =
            self.request(Method::GET, &[volume, "sync", "conflicts"])?.query(&[("limit", 2048)]);
        if let Some(status) = status {
            request = request.query(&[("status", status.as_str())]);
        }
        Ok(data::<ConflictList>(request).await?.conflicts)
    }

    /// Settles a conflict, as `resolved` or `ignored`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn set_conflict(
        &self,
        volume: &str,
        conflict: &str,
        status: ConflictStatus,
        resolution: &str,
        note: &str,
    ) -> Result<SyncConflict, Error> {
        let body = SetConflict {
            status: status.as_str().into(),
            resolution: resolution.into(),
            note: note.into(),
        };
        let request = self.request(Method::PUT, &[volume, "sync", "conflicts", conflict])?;
        data(json(request, &body)?).await
    }
}
