"""What builds on sumout's public API only: bridges, backends and pictures. `sumout` never imports it."""
