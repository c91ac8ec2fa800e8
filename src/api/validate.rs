//! Validation beyond the CRD schema.
