"""A data set of reasoning-gym (pip install reasoning-gym): a row's column "index" is the item."""
import reasoning_gym

sums = reasoning_gym.create_dataset("chain_sum", size=1000, seed=42, min_terms=2, max_terms=3)
