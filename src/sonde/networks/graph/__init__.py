"""Graph networks (GCN, GIN, GATv2, graph transformer) for molecules and other graphs, and for nodes of one."""
