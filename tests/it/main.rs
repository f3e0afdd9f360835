//! The integration tests: one binary, a module for each part of the data flow.
