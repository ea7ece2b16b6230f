"""What models are trained to do: sums over tokens, never means."""
