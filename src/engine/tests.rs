//! Tables for decide().
