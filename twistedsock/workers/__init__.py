"""Several processes on one machine: a supervisor, a hub that joins the workers, and the workers that serve clients."""
