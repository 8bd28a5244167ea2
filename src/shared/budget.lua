-- One call of one replica (a member) about one app's budget.
--
-- In: what the member has done in the last window, what it holds and what it wants, as JSON. Out: what it may have until
-- its next call. Each call brings everything the script must know of its member, so a record that was lost is whole again
-- after one call. All times are this server's, in milliseconds; members tell ages, never times of their own clocks.
--
-- What is counted, summed over the members, never exceeds what the app is granted.

local me = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A server that was frozen reads late what was sent in time. By now the member goes on without us.
if me.by < now then
    return cjson.encode({ late = true, now = now })
end

local state
local members = {}
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
    if stored[i] == 'state' then
        state = cjson.decode(stored[i + 1])
    else
        members[stored[i]] = cjson.decode(stored[i + 1])
    end
end

-- A process that was started again goes on under its name once its predecessor is silent. Two at a time cannot.
local old = members[me.id]
if old and old.life ~= me.life and not old.bye and state and now - old.seen <= me.silent and now >= old.seen then
    return cjson.encode({ late = false, taken = true, now = now })
end

-- Empty, another server, a clock that was set or stood still (to a member's knowledge or to ours), or nobody for a while: what members hold now is not known. Nothing is
-- handed out until all they may hold has run out and each has told what it did since.
if not state or state.run ~= me.run or now < state.seen or now - state.seen > me.gap or me.jumped then
    local unknown = not state or state.run ~= me.run
    state = {
        run = me.run,
        quiet = now + me.valid + me.counts + 20,
        virtual = state and state.virtual or 0,
        -- The end of the pause that Cloudbeds wants, whether it lasts until one that tries comes through, and its number.
        pause = 0,
        paused = false,
        number = 0,
        trial = false,
        passed = false,
        -- Shares of members that have not come back: 'promised' is their sum as members know it.
        unknown = unknown,
        promised = 0,
        missing = state and state.missing or 0,
        since = now,
        gone = state and state.gone or 0,
    }
    for _, member in pairs(members) do
        member.starts, member.rest, member.lease, member.want, member.waiting = {}, {}, 0, 0, 0
        member.seen = now - me.silent - 1
    end
end
state.seen = now
state.gone = math.max(state.gone or 0, me.gone)
local quiet = now < state.quiet

-- How many places a member has, or may have without our knowing.
local function counted(member)
    -- Those that count now, and those that will when it has found out that it lost us.
    local grace = member.seen + me.grace
    local live, later = member.kept, member.kept
    for i = 1, #member.starts, 2 do
        if member.starts[i] > now then live = live + member.starts[i + 1] end
        if member.starts[i] > grace then later = later + member.starts[i + 1] end
    end
    -- What its predecessor started.
    for i = 1, #member.rest, 2 do
        if member.rest[i] > now then live = live + member.rest[i + 1] end
    end
    -- What it may use by itself until it has our answer, and then it has what we granted besides.
    live = math.max(live, member.cap)
    if member.lease > 0 then
        if member.till > now then live = live + member.lease end
        if member.till > grace then later = later + member.lease end
    end
    if now > member.seen + me.silent then return math.max(live, member.share) end
    -- It may have lost us: then it replaces what counted when it found out, up to its share.
    if now > grace then return math.max(live, math.min(later, member.share)) end
    return live
end

-- The others.
local others, promised, count, rank, allowed = 0, 0, 1, 0, me.allowed
-- Properties that wait: with requests of normal priority, and of members that have none of those.
local normal, low = 0, 0
local queue, gone = {}, {}
local others_wait = false
for id, member in pairs(members) do
    local places = id ~= me.id and counted(member) or 0
    if now - member.seen > (member.gone or me.gone) or (member.bye and places == 0) then
        gone[#gone + 1] = id
    elseif id ~= me.id then
        others = others + places
        promised = promised + member.share
        if not member.bye then
            count = count + 1
            if id < me.id then rank = rank + 1 end
        end
        if now - member.seen <= me.silent then allowed = math.min(allowed, member.allowed) end
        if not member.bye and member.waiting > 0 and now - member.seen <= me.silent then others_wait = true end
        if member.want > 0 and now - member.seen <= me.patience then
            queue[#queue + 1] = member
            if member.low then low = low + member.waiting else normal = normal + member.waiting end
        end
    end
end
for _, id in ipairs(gone) do
    redis.call('HDEL', KEYS[1], id)
end
if me.low then low = low + me.waiting else normal = normal + me.waiting end

-- A member's part of what there is. As within a member, all of low priority are together as one more property where others
-- wait: they have a tenth of the places at most, and a hundredth at least.
local lowest = normal > 0 and math.max(math.min(1, normal / 9), normal / 99) or low
local all = normal + (low > 0 and lowest or 0)
local function part(member)
    return member.low and lowest * member.waiting / low or member.waiting
end
-- Where a member stands, with either of its kinds. Nobody is ahead by more than one of its present steps: parts change, and
-- what a step was while one property waited would be a minute of turns once two hundred do.
local function tag(member)
    local at = member.low and member.behind or member.virtual
    return math.min(at or 0, state.virtual + 1 / part(member))
end
for i, member in ipairs(queue) do
    queue[i] = { virtual = tag(member), step = 1 / part(member), want = member.want }
end

-- This one, as it tells.
local mine = {
    life = me.life, seen = now, share = me.share, cap = me.cap, kept = me.bye and 0 or me.kept,
    lease = me.pool, till = now + 1 + me.valid + me.counts, starts = {}, rest = {},
    want = 0, waiting = me.waiting, low = me.low or nil, allowed = me.allowed, virtual = old and old.virtual or 0,
    behind = old and old.behind or 0, bye = me.bye or nil, gone = me.gone, told = me.told,
}
for i = 1, #me.starts, 2 do
    mine.starts[i] = now + 1 - me.starts[i] + me.counts
    mine.starts[i + 1] = me.starts[i + 1]
end

if old then
    local rest = old.rest
    if old.life ~= me.life then
        rest = old.starts
        if old.lease > 0 then rest[#rest + 1], rest[#rest + 2] = old.till, old.lease end
        for i = 1, #old.rest do rest[#rest + 1] = old.rest[i] end
    end
    for i = 1, #rest, 2 do
        if rest[i] > now then mine.rest[#mine.rest + 1], mine.rest[#mine.rest + 2] = rest[i], rest[i + 1] end
    end
end

-- Shares of members that were known before this server's memory was lost, and have not come back.
if state.unknown then
    state.promised = math.max(state.promised, me.promised)
    state.missing = math.max(0, state.promised - promised - me.share)
    if not quiet then state.unknown = false end
elseif not old then
    state.missing = math.max(0, state.missing - me.share)
end
if now - state.since > state.gone then state.missing = 0 end
-- Those that may start without ever having asked have their places kept.
local absent = me.fallback > 0 and math.max(0, me.parts - count) * me.fallback or 0

-- Its share for when it loses us: whole places. It grows only once the others have been told that theirs are smaller.
local share = me.fallback > 0 and me.fallback or math.floor(me.granted / count)
if me.fallback == 0 and rank < me.granted % count then share = share + 1 end
if me.bye then
    share = 0
elseif share > me.share then
    local room = me.granted - promised - state.missing
    share = quiet and me.share or math.max(me.share, math.min(share, room))
end
mine.share = math.max(me.share, share)
if me.bye then mine.share = 0 end

-- What Cloudbeds said. A pause is known by its number: who tried tells which one is over, and what comes back is no news.
state.number = state.number or 0
if me.lifted > 0 and me.lifted == state.number then state.pause, state.paused, state.trial = 0, false, false end
local news = me.number == 0 and me.told > (old and old.life == me.life and old.told or 0)
-- Or this server's memory is younger than the pause; or a replica of an earlier version wrote it down.
if (me.paused and (news or me.number > state.number or state.number == 0)) or (state.pause > now and not state.paused) then
    local left = me.paused and me.pause or 0
    if not state.paused or now + left > state.pause then
        state.pause, state.paused, state.trial = math.max(state.pause, now + left), true, false
        state.number = not news and me.number > state.number and me.number or math.max(now, state.number + 1)
    end
end

-- What it gets.
local free = allowed - others - state.missing - absent - counted(mine)
local grant, more = 0, 0
if not quiet and not me.bye then
    local want = math.min(me.want, me.block)
    if me.waiting == 0 and #queue > 0 then
        -- What it holds ahead of need others need now.
        grant = 0
    elseif free < 0 or want <= me.pool then
        grant = math.max(0, math.min(want, me.pool + math.min(0, free)))
    elseif me.waiting == 0 then
        -- Ahead of need, and only of what nobody waits for.
        local room = math.floor(free / 2)
        -- Whoever has nothing to do has one in case it is left alone, while half of the budget is free besides.
        if me.idle then room = math.max(0, free - math.ceil(me.granted / 2)) end
        more = math.min(want - me.pool, room)
        grant = me.pool + more
    else
        -- Whose turn it is, by start-time fair queueing: a grant moves its owner on by 1 / (its part).
        local at, step = tag(mine), 1 / part(me)
        -- Whoever did not wait, or was not heard of, or waits with another kind now, has no turns saved up.
        local same = old and old.waiting > 0 and (old.low or false) == (me.low or false)
        if not same or now - old.seen > me.patience then at = math.max(at, state.virtual) end
        local most = want - me.pool
        if #queue == 0 then
            more = math.min(most, free)
            if more > 0 then
                state.virtual = math.max(state.virtual, at)
                at = at + more * step
            end
        else
            for _ = 1, free do
                if more == most then break end
                local first
                for _, other in ipairs(queue) do
                    if other.want > 0 and (not first or other.virtual < first.virtual) then first = other end
                end
                if first and first.virtual < at then
                    first.virtual, first.want = first.virtual + first.step, first.want - 1
                else
                    more = more + 1
                    state.virtual = math.max(state.virtual, at)
                    at = at + step
                end
            end
        end
        if me.low then mine.behind = at else mine.virtual = at end
        grant = me.pool + more
    end
end
-- Who tries whether a pause is over: one of all, who has a place for it. It is another one's turn when that one's request has
-- ended without a verdict, or takes too long, or was never heard of again: for two beats, in which others report.
if state.trial and state.trial.id == me.id and me.trying > 0 and me.number == state.number then
    state.trial.till = now + me.trying
end
if state.trial and (state.trial.till <= now or (state.trial.id == me.id and me.trying == 0)) then
    state.passed, state.trial = { id = state.trial.id, till = now + 300 }, false
end
local passes = state.passed and state.passed.id == me.id and now < state.passed.till and others_wait
local trial = 0
if not state.trial and state.paused and not passes then
    if me.trying > 0 and me.number == state.number then
        state.trial = { id = me.id, till = now + me.trying }
    elseif now >= state.pause and me.waiting > 0 and grant > 0 then
        state.trial = { id = me.id, till = now + me.trial }
    end
end
if state.trial and state.trial.id == me.id then trial = state.trial.till - now end
-- While this answer travels, it uses what it held before.
mine.lease = math.max(me.pool, grant)
if me.waiting > 0 then mine.want = math.max(0, me.want - grant) end

-- When it is worth asking again.
local soon = 1000
members[me.id] = mine
for _, member in pairs(members) do
    for i = 1, #member.starts, 2 do
        if member.starts[i] > now then soon = math.min(soon, member.starts[i] - now) end
    end
    for i = 1, #member.rest, 2 do
        if member.rest[i] > now then soon = math.min(soon, member.rest[i] - now) end
    end
    if member.lease > 0 and member.till > now then soon = math.min(soon, member.till - now) end
end
if free > more then soon = grant >= me.block and 0 or math.min(soon, 3) end
-- No place is of use before that.
if state.paused and trial == 0 then soon = state.pause > now and state.pause - now or 1000 end

redis.call('HSET', KEYS[1], 'state', cjson.encode(state), me.id, cjson.encode(mine))
redis.call('PEXPIRE', KEYS[1], 2 * state.gone)
return cjson.encode({
    late = false,
    taken = false,
    now = now,
    quiet = math.max(0, state.quiet - now),
    lease = grant,
    share = share,
    promised = promised + mine.share + state.missing,
    members = count,
    allowed = allowed,
    rate = math.max(1, math.floor(allowed * (me.waiting > 0 and part(me) or 1) / math.max(1, all))),
    pause = math.max(0, state.pause - now),
    paused = state.paused or false,
    number = state.number,
    trial = trial,
    soon = soon,
})
