-- Which actions Argo CD offers on a ServiceRelease, and which are of use now. The operator decides
-- again when it gets the command; this only keeps buttons from being pressed in vain.

local status = obj.status or {}
local step = (status.step or {}).name

local current = status.observedGeneration == obj.metadata.generation
local rollback = status.rollback
local rolling_back = rollback ~= nil and rollback.completedAt == nil
local under_way = status.candidate ~= nil and not rolling_back
local held_in_spec = obj.spec.paused == true
local suspended = status.suspended ~= nil or held_in_spec
local failure_held = status.hold ~= nil
local failed_since = status.observation ~= nil and status.observation.failure ~= nil

-- Where an undo could go: a revision that was stable, is not now, and has not failed.
local function can_undo()
  local barred = { [(status.stable or {}).revision or ""] = true }
  for _, failed in ipairs(status.failedRevisions or {}) do
    barred[failed.revision] = true
  end
  for _, known in ipairs(status.history or {}) do
    if not barred[known.revision] then
      return true
    end
  end
  return false
end

local function has_latched()
  for _, failed in ipairs(status.failedRevisions or {}) do
    if failed.latched then
      return true
    end
  end
  return false
end

-- The way back may leave the schema as it is instead.
local down_waits = status.reason == "MigrateDownAwaitsApproval"
local plan_waits = rolling_back and (down_waits or status.reason == "RestoreAwaitsApproval")

local passable = under_way and not suspended and (failure_held or step == "pause")
local open_pause = step == "pause" and status.phase == "Paused" and not failure_held

local useful = {
  ["promote"] = current and passable,
  ["promote-full"] = current and under_way and not suspended and step ~= "promote",
  -- A superseded candidate that is on its way out can still be called aborted.
  ["abort"] = status.candidate ~= nil and (not rolling_back or rollback.cause == "Superseded"),
  ["undo"] = current and status.candidate == nil and can_undo(),
  ["retry"] = current and (under_way and failure_held or status.candidate == nil and (has_latched() or failed_since)),
  ["approve"] = current and under_way and step == "approval" and not suspended,
  ["approve-migration"] = current and not suspended and status.reason == "MigrationAwaitsApproval",
  ["approve-migrate-down"] = current and not suspended and down_waits,
  ["approve-restore"] = current and not suspended and status.reason == "RestoreAwaitsApproval",
  ["pause"] = under_way and status.suspended == nil,
  ["resume"] = under_way and not held_in_spec and (status.suspended ~= nil or open_pause),
  ["skip"] = current and (passable or plan_waits),
}

local icons = {
  ["promote"] = "fa-forward-step",
  ["promote-full"] = "fa-forward-fast",
  ["abort"] = "fa-ban",
  ["undo"] = "fa-rotate-left",
  ["retry"] = "fa-rotate-right",
  ["approve"] = "fa-check",
  ["approve-migration"] = "fa-database",
  ["approve-migrate-down"] = "fa-backward-step",
  ["approve-restore"] = "fa-clock-rotate-left",
  ["pause"] = "fa-pause",
  ["resume"] = "fa-play",
  ["skip"] = "fa-arrow-right",
}

local actions = {}
for name, enabled in pairs(useful) do
  actions[name] = { disabled = not enabled, iconClass = "fa-solid fa-fw " .. icons[name] }
end
return actions
