"""Resources in, children and assignments out: the pure planner that every runtime shares."""
