//! Files, by path.

use reqwest::{Body, Method, RequestBuilder};

use super::{ByteStream, Client, Done, data, json, stream};
use crate::error::Error;
use crate::volumes::{FileInfo, FileList, Move};

impl Client {
    fn files(
        &self,
        method: Method,
        volume: &str,
        route: &[&str],
        path: &str,
    ) -> Result<RequestBuilder, Error> {
        let parts: Vec<&str> = [volume, "files"].iter().chain(route).copied().collect();
        Ok(self.request(method, &parts)?.query(&[("path", path)]))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn read_file(&self, volume: &str, path: &str) -> Result<ByteStream, Error> {
        stream(self.files(Method::GET, volume, &[], path)?).await
    }

    /// Writes a file, and makes the directories above it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn write_file(
        &self,
        volume: &str,
        path: &str,
        body: impl Into<Body>,
    ) -> Result<(), Error> {
        let request = self.files(Method::POST, volume, &[], path)?;
        let request = request.header("content-type", "application/octet-stream").body(body);
        data::<Done>(request).await.map(|_| ())
    }

    /// Makes a directory; with `recursive` those above it too, and one that is
    /// there already is fine.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn make_directory(
        &self,
        volume: &str,
        path: &str,
        recursive: bool,
    ) -> Result<(), Error> {
        let request = self.files(Method::POST, volume, &[], path)?;
        let request = request.query(&[("mkdir", true), ("recursive", recursive)]);
        data::<Done>(request).await.map(|_| ())
    }

    /// Removes what is at the path, with all below it. Nothing there is fine.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove_file(&self, volume: &str, path: &str) -> Result<(), Error> {
        data::<Done>(self.files(Method::DELETE, volume, &[], path)?).await.map(|_| ())
    }

    /// What is at the path.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stat_file(&self, volume: &str, path: &str) -> Result<FileInfo, Error> {
        data(self.files(Method::GET, volume, &["stat"], path)?).await
    }

    /// The children of a directory.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_files(&self, volume: &str, path: &str) -> Result<Vec<FileInfo>, Error> {
        let list: FileList = data(self.files(Method::GET, volume, &["list"], path)?).await?;
        Ok(list.entries)
    }

    /// Moves a file or directory, and makes the directories above its new path.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn move_file(
        &self,
        volume: &str,
        source: &str,
        destination: &str,
    ) -> Result<(), Error> {
        let body = Move { source: source.into(), destination: destination.into() };
        let request = self.request(Method::POST, &[volume, "files", "move"])?;
        data::<Done>(json(request, &body)?).await.map(|_| ())
    }
}
