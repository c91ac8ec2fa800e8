//! Conditions as kstatus, `kubectl wait` and Argo CD read them.
