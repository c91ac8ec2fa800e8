//! Volumes of the embedded cluster, which has no storage class: directories of this machine.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::{Api, api::PostParams};
use serde_json::json;

use super::World;

/// The directory of a claim.
pub struct Volume {
    path: PathBuf,
    small: bool,
}

impl Volume {
    /// Makes one, which a PersistentVolumeClaim of this name in the scenario's namespace will find.
    pub async fn of(world: &World, claim: &str) -> Self {
        let kubeconfig = world.devcluster(&["kubeconfig"]).await;
        let cluster = world.cluster.embedded.as_deref().expect("the embedded cluster");
        let kubeconfig = Path::new(kubeconfig.lines().next().unwrap_or_default());
        let state = kubeconfig.ancestors().find(|path| path.ends_with(cluster));
        let path = state.expect("the cluster's state").join("volumes").join(&world.namespace).join(claim);
        fs::create_dir_all(&path).expect("a directory");
        let open = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o777));
        open(&path).expect("a directory for everybody");
        let name = format!("{}-{claim}", world.namespace);
        let volume = json!({
            "metadata": {"name": name, "labels": {"servicerelease.io/e2e": world.namespace}},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Ti"},
                "claimRef": {"namespace": world.namespace, "name": claim},
                "hostPath": {"path": path},
            },
        });
        let api: Api<PersistentVolume> = Api::all(world.cluster.client.clone());
        let volume = serde_json::from_value(volume).expect("a PersistentVolume");
        api.create(&PostParams::default(), &volume).await.expect("a volume");
        Self { path, small: false }
    }

    /// The same, and the claim too.
    pub async fn claimed(world: &World, claim: &str) -> Self {
        let volume = Self::of(world, claim).await;
        let text = format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {claim}}},
            spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}}}"
        );
        world.apply(&text).await;
        volume
    }

    /// Has no room but for so many kilobytes from now on.
    pub fn shrink(&mut self, kilobytes: u32) {
        let size = format!("size={kilobytes}k,mode=0777");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&self.path));
        self.small = true;
    }

    /// Is as it was before.
    pub fn grow(&mut self) {
        // Lazily: a pod that is ending may have it still.
        run(Command::new("umount").arg("-l").arg(&self.path));
        self.small = false;
    }

    /// The names of the files in it that end like this, sorted.
    pub fn files(&self, ending: &str) -> Vec<String> {
        let entries = fs::read_dir(&self.path).expect("a directory");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(ending)).collect();
        names.sort();
        names
    }

    /// Where a file of it is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.small {
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn run(command: &mut Command) {
    let status = command.status().expect("a command");
    assert!(status.success(), "{command:?}: {status}");
}
