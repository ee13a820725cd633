"""The papers' tables about local explanations."""
