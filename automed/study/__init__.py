"""What to try next, and who tries it: the only room that speaks to Optuna."""
