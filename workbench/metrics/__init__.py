"""Pure functions on tables: what is measured, how, and in which unit. They know neither models nor the trainer."""
