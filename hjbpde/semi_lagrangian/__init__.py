"""Semi-Lagrangian schemes: values read where the process is a step later."""
