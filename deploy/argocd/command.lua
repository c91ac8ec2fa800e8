-- Creates the ReleaseCommand for an action. `name`, `action`, `full` and `approval` are set in a line
-- that is put before this one.

local os = require("os")
local status = obj.status or {}

local spec = { release = obj.metadata.name, action = action, full = full, reason = "by an Argo CD action" }

-- What moves a release forward names the revision, and the step, that the person had before their
-- eyes, and is rejected when the release has moved on meanwhile. The others mean whatever is there.
local forward = { Promote = true, Approve = true, Skip = true, Retry = true }
if forward[action] then
  spec.revision = (status.candidate or {}).revision
  if action ~= "Retry" and not full then
    spec.step = (status.step or {}).index
  end
end
-- Where it halts over a changed schema: what it offers to release over that.
local fix = (status.database or {}).fix
if action == "Retry" and fix ~= nil and fix.orderedAt == nil then
  spec.revision = fix.revision
end
if action == "Retry" and spec.revision == nil and (status.observation or {}).failure ~= nil then
  spec.revision = status.stable.revision
elseif action == "Retry" and spec.revision == nil then
  for _, failed in ipairs(status.failedRevisions or {}) do
    if failed.latched then
      spec.revision = failed.revision
    end
  end
end

-- A plan for the database is approved by its hash: the one that waits when the button is pressed.
if approval then
  local known = status.database or {}
  if approval == "MigrateDown" then
    known = known.migrationDown or {}
  end
  spec.approval = { kind = approval, planHash = known.planHash }
end

local command = {
  apiVersion = "servicerelease.io/v1alpha1",
  kind = "ReleaseCommand",
  metadata = {
    -- Two presses within a second are one: the second finds the name taken.
    name = obj.metadata.name .. "-argocd-" .. name .. "-" .. os.time(),
    namespace = obj.metadata.namespace,
    -- Shows the command below its release, and removes it with that.
    ownerReferences = {
      {
        apiVersion = obj.apiVersion,
        kind = obj.kind,
        name = obj.metadata.name,
        uid = obj.metadata.uid,
      },
    },
  },
  spec = spec,
}
return { { operation = "create", resource = command } }
