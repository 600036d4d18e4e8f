-- What is being erased, so that whoever keeps house finds it if whoever erased was cut off.
CREATE INDEX perdure_state_erasing ON perdure_state (run) WHERE reason = 'erasing';
