-- An id for each definition, made of its name and version (values/ids.py: definition_id). Rows get it
-- when a worker that has the definition joins. There are few of them: no index.
ALTER TABLE perdure_definition ADD COLUMN id TEXT;
