-- A sign of life, between two reports of a replica: whether what is known of an app's budget can be read and written.
--
-- It changes nothing, and costs the same however many replicas there are. It fails where a report would: the server is full,
-- read-only, empty, or what is there was written by somebody else.

local state = redis.call('HGET', KEYS[1], 'state')
cjson.decode(state)
redis.call('HSET', KEYS[1], 'state', state)
return 'OK'
