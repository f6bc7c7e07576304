"""What the integration and adversarial tests share: small commands, attacks, and eyes for what is left of them."""
