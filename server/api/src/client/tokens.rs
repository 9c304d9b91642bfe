//! Tokens.

use reqwest::Method;

use super::{Client, data, json};
use crate::error::Error;
use crate::tokens::{LimitedToken, MadeToken, Message, NewMountToken, NewToken, Token, TokenList};
use crate::volumes::Deleted;

impl Client {
    /// Makes a token. What is answered has it, this once.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_token(&self, new: &NewToken) -> Result<MadeToken, Error> {
        data(json(self.of_service(Method::POST, &["api-keys"])?, new)?).await
    }

    /// The tokens that the bearer of this one may see, newest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn tokens(&self) -> Result<Vec<Token>, Error> {
        let all: TokenList = data(self.of_service(Method::GET, &["api-keys"])?).await?;
        Ok(all.api_keys)
    }

    /// Deletes a token.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_token(&self, id: &str) -> Result<(), Error> {
        data::<Message>(self.of_service(Method::DELETE, &["api-keys", id])?).await.map(|_| ())
    }

    /// Makes a token for a mount of a Volume.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_mount_token(
        &self,
        volume: &str,
        read_only: bool,
    ) -> Result<LimitedToken, Error> {
        let new = NewMountToken { read_only: Some(read_only) };
        self.post(&[volume, "mount-tokens"], &new).await
    }

    /// Ends a token for a mount of a Volume.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_mount_token(&self, volume: &str, id: &str) -> Result<(), Error> {
        let gone = self.request(Method::DELETE, &[volume, "mount-tokens", id])?;
        data::<Deleted>(gone).await.map(|_| ())
    }
}
