"""The calculator: formulas of training, inference, queues, power and cost, pure and with their sources."""
