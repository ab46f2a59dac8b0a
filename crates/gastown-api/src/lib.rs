//! Custom resource types of gastown.gastown.io, with no Kubernetes client in their tree.
