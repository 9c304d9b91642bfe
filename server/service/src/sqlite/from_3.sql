-- Tokens that are limited to one purpose, and end with the one that they were made with.
ALTER TABLE tokens ADD COLUMN parent BLOB REFERENCES tokens ON DELETE CASCADE;
ALTER TABLE tokens ADD COLUMN purpose TEXT;
CREATE INDEX tokens_by_parent ON tokens (parent) WHERE parent IS NOT NULL;
