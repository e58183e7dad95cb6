"""The print shop: pages, pictures, figures and tables of numbers, whatever they are of."""
