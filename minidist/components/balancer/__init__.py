"""HTTP load balancer and reverse proxy."""
