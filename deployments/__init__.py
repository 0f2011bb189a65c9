"""What makes Keeper run somewhere: work pools, limits, images, dashboards."""
