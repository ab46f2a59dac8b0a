//! Git for the operator: gix for reading and building, one module that spawns git.
