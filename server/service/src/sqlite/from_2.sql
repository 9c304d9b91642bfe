-- How much a Volume holds is known after its next write.
ALTER TABLE volumes ADD COLUMN quota_bytes INTEGER;
ALTER TABLE volumes ADD COLUMN quota_inodes INTEGER;
ALTER TABLE volumes ADD COLUMN used_bytes INTEGER;
ALTER TABLE volumes ADD COLUMN used_inodes INTEGER;
